"""Domains of one sum in one process: honest parties, stores that survive a kill, any hub."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from network.smpc.aggregation import OutOfTurn, Party
from network.smpc.attempt import Agreement, Context
from network.smpc.ckks.coordination import CkksCoordinator
from network.smpc.ckks.party import CkksParty
from network.smpc.coordination import Coordinator
from network.smpc.messages import SharingRefused, Unmasking

PHASES = ("advertise", "share", "reveal", "confirm", "unmask")
CONTEXT = Context("ab" * 32, "train", release=3, attempt=0)


class Disk(dict[str, bytes]):
    """What one domain wrote for one attempt; it survives the process."""

    def read(self, name: str) -> bytes | None:
        return self.get(name)

    def write(self, name: str, content: bytes | memoryview) -> None:
        self[name] = bytes(content)

    def erase(self, name: str) -> None:
        self.pop(name, None)


@dataclass
class Domains:
    """A roster with keys; `attempt(n)` begins the n-th attempt with fresh parties and disks."""

    count: int
    threshold: int
    collusion: int
    length: int = 16
    bits: int = 64
    context: Context = CONTEXT
    aggregation: str = "smpc"
    agreement: Agreement = field(init=False)
    keys: dict[str, Ed25519PrivateKey] = field(default_factory=dict)
    parties: dict[str, Any] = field(default_factory=dict)
    disks: dict[str, Disk] = field(default_factory=dict)
    values: dict[str, np.ndarray] = field(default_factory=dict)
    refusals: list[tuple[str, Exception]] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)
    said: list[Any] = field(default_factory=list)

    def __post_init__(self) -> None:
        names = [f"domain-{i}" for i in range(self.count)]
        self.keys = {name: Ed25519PrivateKey.generate() for name in names}
        self.attempt(0)

    def attempt(self, number: int) -> "Domains":
        random = np.random.default_rng(number)
        self.agreement = Agreement(
            replace(self.context, attempt=number),
            {n: key.public_key().public_bytes_raw().hex() for n, key in self.keys.items()},
            self.threshold,
            self.collusion,
            self.length,
            self.bits,
        )
        self.disks = {name: Disk() for name in self.keys}
        self.parties = {name: self.restarted(name) for name in self.keys}
        # Fresh vectors for every attempt, as with fresh noise.
        self.values = {n: random.integers(-(2**20), 2**20, self.length) for n in self.keys}
        self.refusals, self.said, self.left_out = [], [], {}
        return self

    def restarted(self, name: str) -> Any:
        party = Party if self.aggregation == "smpc" else CkksParty
        return party(name, self.agreement, self.keys[name], self.disks[name])

    def ask(self, name: str, phase: str, argument: Any) -> Any:
        """One call to one domain; a refusal is noted and raised."""
        party = self.parties[name]
        try:
            answer = _STEPS[self.aggregation][phase](party, self.values[name], argument)
        except (SharingRefused, OutOfTurn) as error:
            self.refusals.append((name, error))
            raise
        self.said.append(answer)
        return answer

    def exchange(self, phase: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """An honest hub over a faultless wire."""
        answers = {}
        for name, argument in arguments.items():
            try:
                answers[name] = self.ask(name, phase, argument)
            except (SharingRefused, OutOfTurn) as refused:
                self.left_out[name] = str(refused)
        return answers

    def run(self, exchange: Callable[..., Any] | None = None) -> Any:
        kind: Any = Coordinator if self.aggregation == "smpc" else CkksCoordinator
        coordinator = kind(self.agreement, exchange or self.exchange, self.left_out)
        return coordinator.finish(coordinator.begin())

    def sum_of(self, names: tuple[str, ...]) -> np.ndarray:
        return np.sum([self.values[name] for name in names], axis=0)

    def culprits(self) -> set[str]:
        return {e.culprit for _, e in self.refusals if isinstance(e, SharingRefused)}

    def unmaskings(self) -> list[Unmasking]:
        return [answer for answer in self.said if isinstance(answer, Unmasking)]


_MASKS: dict[str, Callable[[Any, np.ndarray, Any], Any]] = {
    "advertise": lambda party, value, _: party.advertise(),
    "share": lambda party, value, adverts: party.share(adverts),
    "reveal": lambda party, value, sealed: party.mask(value.copy(), sealed),
    "confirm": lambda party, value, receipts: party.confirm(receipts),
    "unmask": lambda party, value, confirmations: party.unmask(confirmations),
}
_CKKS = _MASKS | {
    "confirm": lambda party, value, told: party.confirm(*(told or ([], b""))),
    "unmask": lambda party, value, told: party.unmask(*(told or ([], None))),
}
_STEPS = {"smpc": _MASKS, "ckks": _CKKS}
