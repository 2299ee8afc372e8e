"""Three real partners for tests: nodes in processes of their own, on small made-up files."""

import json
import tomllib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import tomli_w
import torch

import coterie as ct
from coterie.commands.plan import federation_of
from coterie.home import Home
from coterie.partners import (
    add_data,
    card_of,
    create_domain,
    invite,
    open_owner,
    pin_peer,
    start_domain,
    stop_domain,
)
from coterie.processes import free_ports
from policies.approvals import create_owner_key, owner_key_hex

NAMES = ("east", "north", "south")
ITEMS, USERS = 30, 40


@dataclass
class Network:
    """A home with three running domains and one invited scientist."""

    home: Home
    names: Sequence[str] = NAMES
    federation: ct.Federation = field(init=False)

    @classmethod
    def create(cls, path: Path) -> "Network":
        network = cls(Home(path))
        catalogue = path / "catalogue.txt"
        path.mkdir(parents=True, exist_ok=True)
        dealer = create_owner_key(network.dealer_key, None)
        catalogue.write_text("".join(f"item-{i}\n" for i in range(ITEMS)))
        for name, port in zip(NAMES, free_ports(3), strict=True):
            create_domain(network.home, name, "127.0.0.1", port)
            rows = path / f"{name}.csv"
            interactions(name).to_csv(rows, index=False)
            for dataset, public in (("interactions", False), ("open-data", True)):
                add_data(
                    network.home.domain(name),
                    file=rows,
                    catalogue=catalogue,
                    dataset=dataset,
                    population=f"{name}-{dataset}",
                    users=100,
                    interactions_per_user=16,
                    holdout=None,
                    epsilon=30.0,
                    public=public,
                )
                trust_dealer(network.home.domain(name).path, owner_key_hex(dealer))
        network.pin()
        with ThreadPoolExecutor(len(NAMES)) as pool:
            list(pool.map(lambda name: start_domain(network.home, name, None), NAMES))
        for name in NAMES:
            invite(network.home, name, "ada@university.example", "scientist", network.home.accounts)
        network.connect()
        return network

    @property
    def dealer_key(self) -> Path:
        """File of the key of whom all owners trust to deal triples."""
        return self.home.path / "dealer.pem"

    def pin(self) -> None:
        cards = {name: card_of(self.home.domain(name)) for name in NAMES}
        for name in NAMES:
            for peer, card in cards.items():
                if peer != name:
                    pin_peer(self.home.domain(name), peer, card.node_key, card.owner_key)

    def connect(self) -> None:
        self.federation = federation_of(self.home, None)

    def approve(self, plan_hash: str) -> None:
        for name in NAMES:
            assert open_owner(self.home, name).approve(plan_hash, "agreed") == "approved"

    def submit_and_approve(self, plan: ct.Plan) -> str:
        answers = self.federation.submit(plan)
        assert {a["status"] for a in answers.values()} == {"pending"}, answers
        plan_hash = self.federation.bind(plan).hash
        self.approve(plan_hash)
        return plan_hash

    def charged(self, name: str, plan_hash: str) -> list[tuple[str, int, int]]:
        answer = json.loads(self.federation.nodes[name].call("progress", plan_hash=plan_hash))
        return [(s, r, a) for s, r, a, state in answer["attempts"] if state == "charged"]

    def stop(self) -> None:
        for name in NAMES:
            stop_domain(self.home, name)


def trust_dealer(domain: Path, key: str) -> None:
    """Add the dealer, and comparisons, to each policy of a domain."""
    for policy in domain.rglob("policy.toml"):
        rules = tomllib.loads(policy.read_text()) | {"dealers": [key], "comparisons": ["spu"]}
        policy.write_text(tomli_w.dumps(rules))


def create_partner(home: Home, name: str, **options: Any) -> None:
    """A domain of its own, with the interactions of a partner called north; not started.

    Args:
        options: of `create_domain`.
    """
    (port,) = free_ports(1)
    create_domain(home, name, "127.0.0.1", port, **options)
    (home.path / "items.txt").write_text("".join(f"item-{i}\n" for i in range(ITEMS)))
    interactions("north").to_csv(home.path / "rows.csv", index=False)
    add_data(
        home.domain(name),
        file=home.path / "rows.csv",
        catalogue=home.path / "items.txt",
        dataset="interactions",
        population=name,
        users=100,
        interactions_per_user=16,
        holdout=None,
        epsilon=10.0,
        public=False,
    )


def interactions(name: str) -> pd.DataFrame:
    """Forty users with three to twelve items each; different for every partner."""
    random = np.random.default_rng(NAMES.index(name))
    rows = []
    for user in range(USERS):
        for item in random.choice(ITEMS, random.integers(3, 13), replace=False):
            rows.append((f"{name}-{user}", f"item-{item}"))
    return pd.DataFrame(rows, columns=["user", "item"])


def counting_plan(
    data: ct.DataSet,
    purpose: str,
    epsilon: float | None = 2.0,
    releases: int = 3,
    aggregation: Literal["smpc", "ckks"] = "smpc",
    spare_attempts: int = 2,
) -> ct.Plan:
    """Counts how many users have each item, several times, and averages."""

    def count(state, user):  # type: ignore[no-untyped-def]
        seen = torch.zeros(data.items).scatter_add(0, user.items, user.mask)
        return {"counts": seen + 0 * state["sum"]}

    def update(state, total, noise):  # type: ignore[no-untyped-def]
        return {"sum": state["sum"] + total["counts"]}

    return ct.Plan(
        name="counting",
        purpose=purpose,
        data=data,
        steps=[ct.Sum("count", count, clip_norm=4.0, releases=releases, update=update)],
        state={"sum": torch.zeros(data.items)},
        epsilon=epsilon,
        aggregation=aggregation,
        spare_attempts=spare_attempts,
        memory=lambda state, user: state["sum"][user.items[:1]],
        scores=lambda state, memory: state["sum"] * memory.sum(),
    )
