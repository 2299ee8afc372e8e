"""The desks of three partners in this process: what their owners see and decide, without nodes."""

from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

import coterie as ct
from coterie.home import Home
from coterie.partners import add_data, card_of, create_domain, pin_peer
from domains.dataset import load_datasets
from domains.desk import Desk
from domains.folder import public_hex
from policies.approvals import load_owner_key, sign_approval, sign_submission
from policies.canonical import sha256_hex
from policies.ledger import Ledger
from policies.plan import Plan, RosterEntry
from tests.network_of_three import ITEMS, NAMES, counting_plan, interactions

ACCOUNT = "a" * 64


@dataclass(frozen=True)
class Desks:
    """Three domains with one private data set each, and an author whose key signs plans."""

    home: Home
    by_name: dict[str, Desk]
    author: Ed25519PrivateKey

    @classmethod
    def create(cls, path: Path) -> "Desks":
        home, catalogue = Home(path / "home"), path / "catalogue.txt"
        catalogue.write_text("".join(f"item-{i}\n" for i in range(ITEMS)))
        for port, name in enumerate(NAMES, 8101):
            create_domain(home, name, "127.0.0.1", port)
            rows = path / f"{name}.csv"
            interactions(name).to_csv(rows, index=False)
            add_data(
                home.domain(name),
                file=rows,
                catalogue=catalogue,
                dataset="interactions",
                population=f"{name}-interactions",
                users=100,
                interactions_per_user=16,
                holdout=None,
                epsilon=30.0,
                public=False,
            )
        cards = {name: card_of(home.domain(name)) for name in NAMES}
        for name in NAMES:
            for peer in set(NAMES) - {name}:
                pin_peer(home.domain(name), peer, cards[peer].node_key, cards[peer].owner_key)
        found = {name: open_desk(home, name) for name in NAMES}
        return cls(home, found, Ed25519PrivateKey.generate())

    @property
    def north(self) -> Desk:
        return self.by_name["north"]

    def plan(self, purpose: str, epsilon: float = 2.0, releases: int = 3) -> Plan:
        """A bound plan that counts users by item, as `counting_plan`."""
        cards = {name: desk.card() for name, desk in self.by_name.items()}
        (facts, *_) = cards["north"]["datasets"]
        data = ct.DataSet("interactions", ITEMS, 16, 300, facts["catalogue"], False)
        roster = [
            RosterEntry(
                name=name,
                server_uid=card["server_uid"],
                node_key=card["node_key"],
                owner_key=card["owner_key"],
            )
            for name, card in cards.items()
        ]
        return counting_plan(data, purpose, epsilon, releases).bind(roster, public_hex(self.author))

    def submit(self, plan: Plan) -> str:
        """Put a plan before every owner; gives its hash."""
        for desk in self.by_name.values():
            desk.submit(plan, ACCOUNT, sign_submission(self.author, plan.hash, ACCOUNT))
        return plan.hash

    def approve(self, plan: Plan, name: str = "north") -> str:
        """One owner signs what her desk shows; gives what she signed."""
        desk, key = self.by_name[name], load_owner_key(self.home.owner_key(name), None)
        shown = desk.explain(plan)
        signed = sign_approval(
            key,
            plan.hash,
            name,
            by=f"owner@{name}.example",
            reason="agreed",
            explanation=sha256_hex(shown.encode()),
        )
        desk.approve(plan.hash, f"owner@{name}.example", signed, "agreed", shown)
        return signed


def open_desk(home: Home, name: str) -> Desk:
    """A domain's desk, as its node opens it when it starts."""
    folder = home.domain(name)
    key = folder.node_key()
    ledger = Ledger(folder.ledger_url, name, key)
    plans = folder.store / "plans"
    return Desk(folder.settings(), public_hex(key), ledger, load_datasets(folder), plans)
