"""An auditor's view of the whole network: every ledger, verified here, with its peers' heads.

Nothing a node says about itself is taken on trust: entries are fetched and replayed by
`policies.verify`, against the heads that all other domains keep of it. An auditor's account (a Syft
guest's) reads ledgers, plans and decisions; it reaches no data, no mock and no method that writes.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from network.client import LoginFailed, NodeClient, NodeRefused, NodeUnreachable, log_in
from network.federation import Account, read_accounts
from network.hub import Card, directory
from policies.accounting import ADJACENCY
from policies.alerts import Alert, alerts, unsigned_heads
from policies.ledger import Entry
from policies.verify import Verdict, heads_problem, verify

PAGE = 1000
"""Entries fetched by one call."""
PATIENCE_S = 60.0
"""How long one answer may take: a node that hangs counts as absent."""


@dataclass(frozen=True)
class DomainAudit:
    """One domain as an auditor found it.

    Attributes:
        entries: how many entries its ledger has.
        head: hash of the last one.
        verdict: of the replay here, with all other domains' heads.
        budgets: cap, spent, held and the bound for a person at every partner, by population;
            every epsilon for `ADJACENCY`, at the budget's delta; None: no limit.
        plans: how many there are of each status.
        kinds: how many entries there are of each kind.
    """

    name: str
    url: str
    node_key: str
    owner_key: str
    entries: int
    head: str
    verdict: Verdict
    budgets: tuple[dict[str, Any], ...]
    plans: dict[str, int]
    kinds: dict[str, int]


@dataclass(frozen=True)
class Cosigned:
    """How far one peer co-signed a domain's ledger.

    Attributes:
        size: entries under the newest head that the peer keeps and signed; 0: none.
        of: how many the ledger has.
        time: when it signed; empty: never.
    """

    domain: str
    peer: str
    size: int
    of: int
    time: str


@dataclass(frozen=True)
class DomainAlert:
    """An `Alert` and whose ledger it is about."""

    domain: str
    alert: Alert


@dataclass(frozen=True)
class Overview:
    """The network at one moment; `absent`: the domains that couldn't be read, and why."""

    domains: tuple[DomainAudit, ...]
    cosignatures: tuple[Cosigned, ...]
    alerts: tuple[DomainAlert, ...]
    absent: dict[str, str]
    adjacency: str = ADJACENCY


class Auditor:
    """Reads every domain's ledger; changes nothing.

    Attributes:
        nodes: the domains that answered, by name.
        absent: the others, and why they can't be read.
    """

    def __init__(self, nodes: Mapping[str, NodeClient], absent: Mapping[str, str]) -> None:
        self.nodes = dict(sorted(nodes.items()))
        self.absent = dict(sorted(absent.items()))
        self._entries: dict[str, list[Entry]] = {name: [] for name in nodes}

    @classmethod
    def connect(cls, accounts: Mapping[str, Account] | Path | str, hub: str | None = None) -> Self:
        """Sign in to every domain that answers.

        Args:
            accounts: by domain, or the JSON file that the owners' invitations wrote.
            hub: the hub's address; its directory then says where the domains are, and which
                there are that gave this auditor no account.

        Raises:
            FederationError: the file isn't such a file. HubError: the hub doesn't answer.
        """
        known = dict(
            read_accounts(Path(accounts)) if isinstance(accounts, str | Path) else accounts
        )
        cards = directory(hub) if hub is not None else {}
        with ThreadPoolExecutor(max(1, len(known))) as pool:
            found = dict(
                zip(known, pool.map(lambda n: _sign_in(known[n], cards.get(n)), known), strict=True)
            )
        absent = {name: said for name, said in found.items() if isinstance(said, str)}
        for name in cards.keys() - known.keys():
            absent[name] = "its owner gave this auditor no account"
        nodes = {name: each for name, each in found.items() if isinstance(each, NodeClient)}
        return cls(nodes, absent)

    def read(self, domain: str, method: str, **arguments: Any) -> Any:
        """What a domain's `coterie.METHOD` answers, as JSON values.

        Raises:
            NodeRefused, NodeUnreachable: as the node said.
        """
        return self.nodes[domain].read(method, timeout_s=PATIENCE_S, **arguments)

    def overview(self, progress: Callable[[str], None] | None = None) -> Overview:
        """Fetch and verify every ledger, with all the heads that the domains keep of each other.

        Args:
            progress: told each domain's name before it is verified.
        """
        absent, cards, heads = dict(self.absent), dict[str, Any](), dict[str, Any]()
        audited, odd = [], []
        for name, node in self.nodes.items():
            try:
                cards[name] = self.read(name, "describe")
                held = self.read(name, "ledger_heads")["held"]
                self.entries(name)
            except (NodeRefused, NodeUnreachable, ValueError, TypeError, KeyError) as error:
                absent[name] = str(error) or type(error).__name__
                continue
            # What one domain keeps badly must not count against those that it keeps heads of.
            if problem := heads_problem(held, node.node_key):
                odd.append(DomainAlert(name, Alert("heads unreadable", "", problem, ())))
            else:
                heads[name] = held
        for name in cards.keys() - absent.keys():
            if progress is not None:
                progress(name)
            audited.append(self._audit(name, cards[name], heads))
        audited.sort(key=lambda each: each.name)
        cosigned = tuple(_matrix(audited, heads))
        return Overview(
            domains=tuple(audited),
            cosignatures=cosigned,
            alerts=(*odd, *self._alerts(audited, cosigned)),
            absent=absent,
        )

    def entries(self, domain: str) -> list[Entry]:
        """All entries of a domain's ledger; those fetched before aren't fetched again.

        Where the ledger no longer continues what was fetched before, all are fetched anew; the
        verdict against the peers' heads says what happened to it.
        """
        kept = self._entries[domain]
        if kept:
            last = self.read(domain, "ledger", after=len(kept) - 1, limit=1)
            if not last or Entry(**last[0]) != kept[-1]:
                kept.clear()
        while page := self.read(domain, "ledger", after=len(kept), limit=PAGE):
            before = len(kept)
            kept += [Entry(**each) for each in page[:PAGE]]
            if any(e.index != before + n + 1 for n, e in enumerate(kept[before:])):
                break  # not a chain: the replay names the first entry that is out of place
        return list(kept)

    def plans(self) -> list[dict[str, Any]]:
        """Every plan of every domain, with its status and who decided why."""
        return self._everywhere("plans")

    def runs(self) -> list[dict[str, Any]]:
        """Every approved plan of every domain, and how far it came."""
        return self._everywhere("ledger_runs")

    def approvals(self) -> list[dict[str, Any]]:
        """Every approval and denial: who, when, why, and the hash of what was shown."""
        return [*self._said("approval"), *self._said("denial")]

    def refusals(self) -> list[dict[str, Any]]:
        """Every refusal by a rule, with the rule and its reason."""
        return self._said("refusal")

    def _everywhere(self, method: str) -> list[dict[str, Any]]:
        return [{"domain": n, **row} for n in self.nodes for row in self.read(n, method)]

    def _said(self, kind: str) -> list[dict[str, Any]]:
        return [
            {"domain": name, "index": entry.index, **json.loads(entry.body)}
            for name in self.nodes
            for entry in self.entries(name)
            if entry.kind == kind
        ]

    def _audit(
        self, name: str, card: Mapping[str, Any], heads: Mapping[str, Mapping[str, Any]]
    ) -> DomainAudit:
        node, entries = self.nodes[name], self._entries[name]
        counts = self.read(name, "ledger_counts")
        return DomainAudit(
            name=name,
            url=node.url,
            node_key=node.node_key,
            owner_key=str(card["owner_key"]),
            entries=len(entries),
            head=entries[-1].hash if entries else "",
            verdict=_verdict(entries, node.node_key, str(card["owner_key"]), heads),
            budgets=tuple(self.read(name, "budgets")),
            plans=counts["plans"],
            kinds=counts["kinds"],
        )

    def _alerts(
        self, audited: Iterable[DomainAudit], cosigned: Iterable[Cosigned]
    ) -> Iterable[DomainAlert]:
        now, pairs = datetime.now(UTC), list(cosigned)
        for each in audited:
            entries = self._entries[each.name]
            try:
                signed = {p.peer: p.size for p in pairs if p.domain == each.name}
                found = [*alerts(entries, now), *unsigned_heads(entries, each.name, signed)]
            except (ValueError, KeyError, TypeError, AttributeError):
                continue  # an entry that can't be read; the verdict names it
            yield from (DomainAlert(each.name, alert) for alert in found)


def _sign_in(account: Account, card: Card | None) -> NodeClient | str:
    """A session, or why there is none."""
    if card is not None and account.node_key is not None and card.node_key != account.node_key:
        return "the directory names another node key than its owner gave: compare them with her"
    url = card.url if card is not None else account.url
    try:
        return log_in(url, account.email, account.password, account.node_key)
    except (NodeUnreachable, LoginFailed, NodeRefused) as error:
        return str(error)


def _verdict(
    entries: list[Entry], node_key: str, owner_key: str, heads: Mapping[str, Mapping[str, Any]]
) -> Verdict:
    others = [each for each in heads.values() if each["witness_key"] != node_key]
    return verify(entries, node_key, owner_key, others or None)


def _matrix(
    audited: Iterable[DomainAudit], heads: Mapping[str, Mapping[str, Any]]
) -> Iterable[Cosigned]:
    for domain in audited:
        for peer, said in sorted(heads.items()):
            if peer == domain.name:
                continue
            signed = {
                h["size"]: h["time"] for h in said["heads"] if h["node_key"] == domain.node_key
            }
            newest = max(signed, default=0)
            yield Cosigned(domain.name, peer, newest, domain.entries, signed.get(newest, ""))
