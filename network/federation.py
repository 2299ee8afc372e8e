"""The data scientist's handle on all partners: look, quote, submit, train."""

import json
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from network.client import NodeClient, NodeUnreachable, log_in
from network.program import DataSet, Plan
from network.tensor_runs import Tensors
from network.tls import trust
from network.training import Progress, Run, load_run, open_run, train
from policies.approvals import create_owner_key, load_owner_key, sign_submission
from policies.plan import Plan as ApprovablePlan
from policies.plan import RosterEntry


class FederationError(Exception):
    """The partners don't fit together, or not all of them agree; the text says who and why."""


@dataclass(frozen=True)
class Account:
    """A Syft account on one node.

    Attributes:
        node_key: the node's verify key as its owner gave it, 64 hex characters.
        certificate: what the node is trusted by, as PEM; None: what the system trusts.
        shown, shown_key: files of a certificate and key of your own, where the node asks for one.
    """

    url: str
    email: str
    password: str
    node_key: str | None = None
    certificate: str | None = None
    shown: str | None = None
    shown_key: str | None = None


def read_accounts(path: Path) -> dict[str, Account]:
    """Accounts by domain from a JSON file that an owner's invitation wrote.

    Raises:
        FederationError: the file is missing or isn't such a file.
    """
    try:
        return {name: Account(**fields) for name, fields in json.loads(path.read_text()).items()}
    except FileNotFoundError:
        raise FederationError(f"No logins at {path}. Ask the owners for an invitation.") from None
    except (ValueError, TypeError, AttributeError):
        raise FederationError(
            f"{path} must be JSON: {{DOMAIN: {{url, email, password, node_key}}}}."
        ) from None


class Federation:
    """Partners that this scientist has accounts with.

    Attributes:
        domains: each domain's card (public keys, declared data sets) by name.
    """

    def __init__(self, nodes: Mapping[str, NodeClient], author: Ed25519PrivateKey) -> None:
        self.nodes = dict(sorted(nodes.items()))
        self._author = author
        self.domains: dict[str, dict[str, Any]] = self._everywhere(lambda n: n.read("describe"))

    def data(self, name: str) -> DataSet:
        """The data set of that name, as all partners declare it.

        Raises:
            FederationError: a partner lacks it or declares another catalogue or bound.
        """
        facts = {domain: _facts_of(card, domain, name) for domain, card in self.domains.items()}
        first_domain, first = next(iter(facts.items()))
        for domain, other in facts.items():
            for field in ("catalogue", "items", "interactions_per_user", "public"):
                if other[field] != first[field]:
                    raise FederationError(
                        f"'{name}' differs: {field} is {first[field]} at {first_domain} and "
                        f"{other[field]} at {domain}. Partners must agree on one schema."
                    )
        return DataSet(
            name=name,
            items=first["items"],
            interactions=first["interactions_per_user"],
            users=sum(f["users"] for f in facts.values()),
            catalogue=first["catalogue"],
            public=first["public"],
            users_at_one=max(f["users"] for f in facts.values()),
        )

    def bind(self, plan: Plan) -> ApprovablePlan:
        """The plan as these domains would be asked to approve it."""
        roster = [
            RosterEntry(
                name=name,
                server_uid=card["server_uid"],
                node_key=card["node_key"],
                owner_key=card["owner_key"],
            )
            for name, card in self.domains.items()
        ]
        return plan.bind(roster, self._author.public_key().public_bytes_raw().hex())

    def quote(self, plan: Plan) -> dict[str, dict[str, Any]]:
        """Each domain's answer to the plan: cost, budget, and every rule that refuses it."""
        text = self.bind(plan).to_json()
        return self._everywhere(lambda node: node.read("quote", plan=text))

    def submit(self, plan: Plan) -> dict[str, dict[str, Any]]:
        """Put the plan before every owner.

        Raises:
            NodeUnreachable: a partner is down; nothing was submitted anywhere.
        """
        bound = self.bind(plan)
        self._everywhere(lambda node: node.read("describe"))
        answers: dict[str, dict[str, Any]] = {}
        for name, node in self.nodes.items():
            signature = sign_submission(self._author, bound.hash, node.verify_key)
            answers[name] = node.read("submit", plan=bound.to_json(), signature=signature)
        return answers

    def withdraw(self, plan_hash: str, reason: str) -> dict[str, str]:
        """Take a plan back at every domain; gives its status there.

        Raises:
            NodeRefused: a domain knows no such plan of yours, or it has ended there.
        """
        full = {each["plan_hash"] for each in self.status(plan_hash).values()}
        if len(full) != 1:
            raise FederationError(f"'{plan_hash[:64]}' starts several plans; give more of the hash")
        (whole,) = full
        return self._everywhere(lambda node: node.call("withdraw", plan_hash=whole, reason=reason))

    def status(self, plan_hash: str) -> dict[str, dict[str, Any]]:
        """Where the plan stands at each domain, with reasons and signatures.

        Each domain is told what the other owners decided, as they or their ledgers signed it.

        `plan_hash` may be its start, of at least 6 characters.
        """
        found = self._everywhere(lambda node: node.read("plan", plan_hash=plan_hash))
        self._tell(found)
        return found

    def _tell(self, found: Mapping[str, Mapping[str, Any]]) -> None:
        """Let every owner see what the others decided: nodes don't ask each other."""
        said = {name: each.get("decision") or each["signature"] for name, each in found.items()}
        signed = {name: word for name, word in said.items() if word}
        if signed:
            (full, *more) = {each["plan_hash"] for each in found.values()}
            if not more:
                approvals = json.dumps(signed)
                self._everywhere(
                    lambda node: node.call("tell", plan_hash=full, approvals=approvals)
                )

    def train(
        self,
        plan: Plan,
        folder: Path | None = None,
        on_progress: Callable[[Progress], None] | None = None,
    ) -> Run:
        """Run an approved plan to its end, or take it up where it stopped.

        Args:
            folder: where the run's journal and state are kept; default runs/HASH.
            on_progress: called after every release.

        Raises:
            NotApproved: an owner has not approved; says who, and why if denied.
            RunInterrupted: a domain failed; says which, and how to go on.
        """
        approvable = self.bind(plan)
        target = folder or Path("runs") / approvable.hash[:16]
        return train(self.nodes, plan, approvable, target, on_progress or (lambda _: None))

    def tensors(self, plan: Plan, folder: Path | None = None, dealer: str | None = None) -> Tensors:
        """What an approved plan keeps in shares among its domains; see `Tensors`.

        Args:
            folder: where transcripts of what is revealed are kept; default runs/HASH.
            dealer: where the plan's dealer answers, as http://HOST:PORT.

        Raises:
            NotApproved: an owner has not approved; says who, and why if denied.
            RunInterrupted: the folder belongs to another plan.
        """
        approvable = self.bind(plan)
        open_run(self.nodes, approvable)
        target = folder or Path("runs") / approvable.hash[:16]
        load_run(target, approvable, plan)
        return Tensors(self.nodes, plan, approvable, target, dealer)

    def _everywhere(self, ask: Callable[[NodeClient], Any]) -> dict[str, Any]:
        with ThreadPoolExecutor(max(1, len(self.nodes))) as pool:
            calls = {name: pool.submit(ask, node) for name, node in self.nodes.items()}
        return {name: call.result() for name, call in calls.items()}


def connect(accounts: Mapping[str, Account] | Path | str, key: Path | str) -> Federation:
    """Log in to every partner.

    Args:
        accounts: by domain, or the path of the JSON file that holds them.
        key: file of the key that the scientist signs plans with; made if there is none.

    Raises:
        NodeUnreachable, LoginFailed: names the domain.
    """
    if isinstance(accounts, str | Path):
        accounts = read_accounts(Path(accounts))
    if not accounts:
        raise FederationError("No accounts given; a federation needs at least one partner.")
    nodes = {name: _log_in(name, account) for name, account in accounts.items()}
    path = Path(key)
    author = load_owner_key(path, None) if path.exists() else create_owner_key(path, None)
    return Federation(nodes, author)


def _log_in(name: str, account: Account) -> NodeClient:
    try:
        if account.certificate is not None or account.shown is not None:
            own = [Path(each) if each else None for each in (account.shown, account.shown_key)]
            trust(account.url, account.certificate, *own)
        return log_in(account.url, account.email, account.password, account.node_key)
    except NodeUnreachable as error:
        raise NodeUnreachable(name, account.url, error.why) from None


def _facts_of(card: Mapping[str, Any], domain: str, name: str) -> dict[str, Any]:
    datasets: Iterable[dict[str, Any]] = card["datasets"]
    for facts in datasets:
        if facts["name"] == name:
            return facts
    known = ", ".join(facts["name"] for facts in datasets) or "none"
    raise FederationError(f"{domain} has no data set '{name}'. It has: {known}.")
