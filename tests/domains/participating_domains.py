"""Domains in rounds, three if nothing else is said, in one process: nodes' own state machines and
ledgers.

Only the engines' processes are left out: what a domain's users add up to is given by hand.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from numpy.typing import NDArray

from domains.answering import REFUSALS
from domains.frames import Stored
from domains.participation import Participation
from domains.sums import ExactSum, Sums
from network.heads import Heads
from network.program import DataSet, Plan, Sum
from network.smpc.agreement import agreement_of
from network.smpc.ckks.coordination import CkksCoordinator
from network.smpc.coordination import Coordinator, Exchange, Opened
from policies.accounting import Event
from policies.approvals import owner_key_hex, sign_approval
from policies.ledger import Ledger
from policies.ledger.heads import Cosignature
from policies.plan import Plan as ApprovablePlan
from policies.plan import RosterEntry

NAMES = ("east", "north", "south")
STATE = b"\x02\x00\x00\x00\x00\x00\x00\x00{}"
"""A safetensors file without tensors."""


@dataclass
class Domains:
    """Domains of one plan; `ask` is one step at one of them.

    Attributes:
        written: the plan as its author has it.
        values: by domain, what its engine gives, int64 [P].
        models: by domain, from what its engine computed users' memories.
        objections: by domain, why it takes part with these partners no longer.
    """

    folder: Path
    plan: ApprovablePlan
    written: Plan
    keys: Mapping[str, Ed25519PrivateKey]
    approvals: Mapping[str, str]
    values: dict[str, NDArray[np.int64]]
    models: dict[str, Any] = field(default_factory=dict)
    ledgers: dict[str, Ledger] = field(default_factory=dict)
    parts: dict[str, Participation] = field(default_factory=dict)
    objections: dict[str, str] = field(default_factory=dict)

    def restart(self, name: str) -> Participation:
        """A domain's process ended, anyhow, and is there again."""
        if name in self.ledgers:
            self.ledgers[name].dispose()
        place = self.folder / name
        place.mkdir(exist_ok=True)
        ledger = Ledger(f"sqlite:///{place / 'ledger.db'}", name, self.keys[name])
        self.ledgers[name] = ledger
        self.parts[name] = Participation(
            name, self.keys[name], ledger, place / "attempts", lambda _: self.objections.get(name)
        )
        return self.parts[name]

    def open(self, name: str) -> None:
        self.parts[name].open(self.plan, self.approvals, self.dataset(name))

    def dataset(self, name: str) -> Any:
        """What a domain's users are to a run."""
        engine = SimpleNamespace(
            alive=True,
            private_sum=lambda *_: left(self.values[name]),
            memory=lambda state: self.models.update({name: arrays_of(state)}),
            close=lambda: None,
        )
        return SimpleNamespace(users=10, public=False, enclosure=lambda *_: engine)

    def round(self, release: int = 0, attempt: int = 0) -> Opened:
        """One attempt, carried by an honest coordinator; the total is what the domains gave."""
        carried = Carried(self, release, attempt)
        opened = carried.run()
        given = [carried.noised[name] for name in opened.survivors]
        np.testing.assert_array_equal(opened.total, np.sum(given, axis=0))
        return opened


class Carried:
    """One attempt between domains, and what was said in it.

    Attributes:
        noised: by domain, its part of the sum.
        begun: what was said before anything was masked.
        left_out: what was wrong with whom.
    """

    begun: Any

    def __init__(self, domains: Domains, release: int = 0, attempt: int = 0) -> None:
        self.domains, self.heads = domains, Heads()
        self.signed: dict[str, list[Cosignature]] = {}
        self.noised: dict[str, NDArray[np.int64]] = {}
        self.left_out: dict[str, str] = {}
        self.where = (domains.plan.hash, "s", release, attempt)
        self.agreement = agreement_of(domains.plan, "s", release, attempt)

    def run(self, exchange: Exchange | None = None) -> Any:
        """What is opened: `Opened`, or `CkksOpened` under that plan."""
        ckks = self.domains.plan.aggregation == "ckks"
        kind: Any = CkksCoordinator if ckks else Coordinator
        coordinator = kind(self.agreement, exchange or self.exchange, self.left_out)
        self.begun = coordinator.begin()
        return coordinator.finish(self.begun)

    def exchange(self, phase: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        return {name: self.ask(name, phase, argument) for name, argument in arguments.items()}

    def tolerant(self, phase: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """The same, going on without those who refuse; what they say is kept."""
        answers = {}
        for name, argument in arguments.items():
            try:
                answers[name] = self.ask(name, phase, argument)
            except REFUSALS as refused:
                self.left_out[name] = str(refused)
        return answers

    def _value_of(self, part: Participation) -> NDArray[np.int64]:
        attempt = part._open_runs.of(self.domains.plan.hash).attempt
        assert attempt is not None
        return attempt.noised().copy()

    def ask(self, name: str, phase: str, argument: Any) -> Any:
        part, heads = self.domains.parts[name], self.heads
        if phase == "advertise":
            advert, heads.held[name] = part.advertise(*self.where)
            return advert
        if phase == "share":
            sealed, heads.notes[name] = part.share(
                *self.where, argument, STATE, heads.held_of(name)
            )
            self.noised[name] = self._value_of(part)
            return sealed
        if phase == "reveal":
            return part.reveal(*self.where, argument, heads.notes_for(name))
        # Under CKKS, the sum or its digest comes with the messages.
        more = () if isinstance(argument, list) else argument[1:]
        said = argument if isinstance(argument, list) else argument[0]
        if phase == "confirm":
            confirmation, self.signed[name] = part.confirm(*self.where, said, *more)
            return confirmation
        mine, confirmed = self.agreement.roster[name], {each.domain for each in said}
        kept = {
            n: [each for each in signed if each.node_key == mine]
            for n, signed in self.signed.items()
            if n in confirmed - {name}
        }
        return part.unmask(*self.where, said, kept, *more)


def domains_in(
    folder: Path,
    size: int = 8,
    releases: int = 4,
    remembered: int | None = None,
    kept: bool = False,
    second: Mapping[str, float] | None = None,
    names: Sequence[str] = NAMES,
    **agreed: Any,
) -> Domains:
    """Domains that all opened the run of a plan with one step, `s`, of `size` numbers.

    Args:
        names: of the domains, sorted.
        remembered: how many numbers there are in the state that users' memories come from.
        kept: whether the step's sum stays shared among them.
        second: by domain where two persons agree, for how many days the second one does.
        agreed: what else the plan says.
    """

    def count(state, user):  # type: ignore[no-untyped-def]
        return {"counts": torch.zeros(size).scatter_add(0, user.items, user.mask)}

    keys = {name: Ed25519PrivateKey.generate() for name in names}
    owners = {name: Ed25519PrivateKey.generate() for name in names}
    roster = [
        RosterEntry(
            name=n,
            server_uid=n,
            node_key=owner_key_hex(keys[n]),
            owner_key=owner_key_hex(owners[n]),
        )
        for n in names
    ]
    data = DataSet("clicks", min(size, 9), 4, 100, "0" * 64, False, 100 if kept else None)
    step = Sum("s", count, 4.0, releases=releases, kept=kept)
    state = {} if remembered is None else {"w": torch.zeros(remembered)}
    memory = None if remembered is None else (lambda state, user: state["w"][:2] * user.mask.sum())
    written = Plan("p", "test", data, [step], state, epsilon=4.0, memory=memory, **agreed)
    plan = written.bind(roster, "f" * 64)
    approvals = {n: sign_approval(owners[n], plan.hash, n) for n in names}
    random = np.random.default_rng(1)
    values = {n: random.integers(-1000, 1000, size) for n in names}
    domains = Domains(folder, plan, written, keys, approvals, values)
    definition = plan.steps[0]
    event = Event(definition.noise_multiplier, definition.sampling_rate, releases + 2)
    second = second or {}
    for name in names:
        domains.restart(name)
        ledger = domains.ledgers[name]
        ledger.open_budget("shoppers", 1e6, 1e-5)
        ledger.submit(plan.hash, "p", "f" * 64, "shoppers", [event], {"steps": 1}, 2)
        signed, key = approvals[name], owner_key_hex(owners[name])
        agreed = None
        if name in second:
            person = Ed25519PrivateKey.generate()
            text = sign_approval(person, plan.hash, name, days=second[name])
            agreed = owner_key_hex(person), text
        ledger.approve(plan.hash, "owner", key, signed, "what it does", "fine", agreed)
        domains.open(name)
    return domains


def left(values: NDArray[np.int64]) -> ExactSum:
    """A sum as an engine leaves it."""
    sums = Sums(values.size)
    os.pwrite(sums.fileno(), values.tobytes(), 0)
    return sums.next()


def arrays_of(state: Mapping[str, Stored]) -> dict[str, NDArray]:
    """What lies in a file, in memory."""
    return {
        name: np.frombuffer(b"".join(map(bytes, kept.pieces())), kept.dtype).reshape(kept.shape)
        for name, kept in state.items()
    }
