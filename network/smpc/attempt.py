"""Which attempt of what, and among whom: what everything that is said in a sum is bound to.

Signatures, keys and masks cover these values' canonical bytes, so that nothing of one attempt can
be used in another.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from network.smpc import ring
from network.smpc.neighbours import degree, neighbourhood, share_threshold
from network.smpc.shamir import MAX_SHARES

_NAME_BYTES = 64
_COUNTER_LIMIT = 2**32
_TENSOR = "([0-9a-f]{64}/[0-9]{1,9})?"


class NoSuchAttempt(ValueError):
    """No attempt of a plan can have this name or number; the text says which and what may be."""


@dataclass(frozen=True)
class Context:
    """The one attempt that keys, shares and signatures are good for.

    Attributes:
        plan_hash: SHA-256 of the plan, 64 lower-case hex characters. It binds the roster.
        step: name of the plan's step, 1 to 64 bytes of UTF-8.
        release: index of the release within the step, from 0.
        attempt: index of the attempt at that release, from 0.
        tensor: the tensor that is revealed, as `NAME/LENGTH`; empty where the step's own total is.

    Raises:
        NoSuchAttempt: a field is out of these bounds.
    """

    plan_hash: str
    step: str
    release: int
    attempt: int
    tensor: str = ""

    def __post_init__(self) -> None:
        if not isinstance(self.plan_hash, str) or not re.fullmatch("[0-9a-f]{64}", self.plan_hash):
            raise NoSuchAttempt("A plan's hash has 64 lower-case hex digits.")
        try:
            check_name(self.step)
        except ValueError as error:
            raise NoSuchAttempt(f"There is no such step: {error}.") from None
        for name, value in (("release", self.release), ("attempt", self.attempt)):
            if type(value) is not int or not 0 <= value < _COUNTER_LIMIT:
                raise NoSuchAttempt(
                    f"There is no such {name}: it is an integer from 0 to {_COUNTER_LIMIT - 1}."
                )
        if not isinstance(self.tensor, str) or not re.fullmatch(_TENSOR, self.tensor):
            raise NoSuchAttempt(
                "A tensor is named by 64 lower-case hex digits, '/' and its length."
            )

    @property
    def bytes(self) -> bytes:
        """Canonical bytes: two contexts have the same ones only if they are equal."""
        return framed(
            b"coterie-context-v1",
            bytes.fromhex(self.plan_hash),
            self.step.encode(),
            self.release.to_bytes(4, "big"),
            self.attempt.to_bytes(4, "big"),
            *([self.tensor.encode()] if self.tensor else []),
        )

    @property
    def tensor_length(self) -> int | None:
        """How many elements the tensor has, if one is revealed."""
        return int(self.tensor.partition("/")[2]) if self.tensor else None


@dataclass(frozen=True)
class Agreement:
    """What all domains know before an attempt, from the plan that their owners signed.

    Attributes:
        context: which attempt of what.
        roster: every domain's name and its node's Ed25519 key (64 hex characters).
        threshold: tau, how many domains must survive.
        collusion: t, how many domains may be malicious.
        length: number of ring elements, P.
        bits: width of the ring, 32 or 64.

    Raises:
        ValueError: the numbers don't fit: 2 to 64 domains, t < tau <= N, 2 tau > N + t.
    """

    context: Context
    roster: Mapping[str, str]
    threshold: int
    collusion: int
    length: int
    bits: int

    def __post_init__(self) -> None:
        size, tau, t = len(self.roster), self.threshold, self.collusion
        if not 2 <= size <= MAX_SHARES:
            raise ValueError(f"a sum is made among 2 to {MAX_SHARES} domains, not {size}")
        if not 0 <= t < tau <= size or 2 * tau <= size + t:
            raise ValueError(
                f"threshold {tau} doesn't fit {size} domains of which {t} may collude: expected "
                f"{(size + t) // 2 + 1} to {size} (2 tau > N + t)"
            )
        ring.word(self.bits)
        if not 0 <= self.length <= ring.MAX_LENGTH:
            raise ValueError(f"a sum has 0 to {ring.MAX_LENGTH} elements, not {self.length}")
        for name in self.roster:
            check_name(name)

    @cached_property
    def bytes(self) -> bytes:
        """Canonical bytes: two agreements have the same ones only if they are equal."""
        numbers = (self.threshold, self.collusion, self.length, self.bits)
        return framed(
            b"coterie-agreement-v1",
            self.context.bytes,
            *(value.to_bytes(8, "big") for value in numbers),
            *(part.encode() for name in self.names for part in (name, self.roster[name])),
        )

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The roster's names, sorted."""
        return tuple(sorted(self.roster))

    @cached_property
    def share_threshold(self) -> int:
        """How many shares open a secret."""
        return share_threshold(len(self.roster), self.threshold, self.collusion)

    def neighbourhood(self, name: str) -> tuple[str, ...]:
        """A domain and those it masks with and deals shares to, sorted; see `neighbours`."""
        return self._neighbourhoods[name]

    @cached_property
    def _neighbourhoods(self) -> dict[str, tuple[str, ...]]:
        size = len(self.roster)
        each = degree(size, self.threshold, self.collusion)
        return {
            name: tuple(self.names[other] for other in neighbourhood(index, size, each))
            for index, name in enumerate(self.names)
        }

    def holder(self, name: str) -> int:
        """The number of a domain's Shamir shares, from 1."""
        return self.names.index(name) + 1


def framed(label: bytes, *parts: bytes) -> bytes:
    """Label and parts, each after its length: no two lists of parts give the same bytes."""
    return b"".join(len(part).to_bytes(4, "big") + part for part in (label, *parts))


def check_name(value: str) -> str:
    """The name, if it is 1 to 64 bytes of printable UTF-8; ValueError else."""
    if not isinstance(value, str) or not value.isprintable() or not value:
        raise ValueError("a name must be printable text")
    if len(value) > _NAME_BYTES or len(value.encode()) > _NAME_BYTES:
        raise ValueError(f"a name has at most {_NAME_BYTES} bytes")
    return value
