"""Carrying one computation between the domains and the dealer; `network.smpc.dealing`.

Whoever carries sees keys, sealed seeds, coins and openings, all of them uniform or public, and all
of them signed, so that changing any of it only makes the domains refuse. What a domain answers is
read here as strictly as a domain reads what it is told.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from network.client import NodeRefused
from network.dealer import Wanted
from network.smpc.dealing import Said, Words, unpack
from network.smpc.messages import MalformedMessage, _Message
from network.smpc.sharing import TensorKey
from network.smpc.tensors import Made, Secret
from network.smpc.triples import Factors
from network.smpc.truncation import Truncation
from policies.plan import Plan

Everywhere = Callable[[str, Mapping[str, tuple[Mapping[str, Any], Words]]], dict[str, Any]]
"""(phase, what each domain is told) -> their answers, as octets."""
Deal = Callable[[Wanted], tuple[dict[str, Any], Words]]
"""Asks the dealer: a `Dealt` as JSON-able values, and the corrections, flat."""

_NONE = np.zeros(0, np.uint64)


def carry(
    plan: Plan, deal: Deal, asked: Secret, work: Factors | Truncation, tell: Everywhere
) -> dict[str, Made]:
    """Have all domains compute; gives what each says it made.

    Raises:
        DealerError: the dealer dealt nothing.
        NodeRefused, NodeUnreachable: a domain refused, isn't there, or answers what can't be read;
            nothing was made there.
    """
    names = sorted(entry.name for entry in plan.roster)

    def everywhere(
        phase: str, said: Mapping[str, Any], kind: type[_Message], words: int = 0
    ) -> dict[str, tuple[Any, Words]]:
        answers = tell(phase, dict.fromkeys(names, (said, _NONE)))
        return {name: _read(name, answers[name], kind, words) for name in names}

    keys = [key.to_dict() for key, _ in everywhere("begin", asked.to_dict(), TensorKey).values()]
    dealt, corrections = deal(wanted_of(plan, asked, work, keys))
    told = {"keys": keys, "dealt": dealt}
    # Only the first domain needs the corrections; the others have their digest.
    each = {name: (told, corrections if name == names[0] else _NONE) for name in names}
    tossed = tell("take", each)
    coins = [_read(name, tossed[name], Said, 0)[0].to_dict() for name in names]
    opening = 2 * work.masked + work.opened
    phases: list[tuple[str, dict[str, Any], int]] = [
        ("opening", {"coins": coins}, opening),
        ("check", {}, 2 * work.checked),
    ]
    for phase, about, size in phases:
        heard = everywhere(phase, about, Said, size)
        for sender, (message, words) in heard.items():
            said = {"said": message.to_dict()}
            tell("hear", {name: (said, words) for name in names if name != sender})
    return {name: made for name, (made, _) in everywhere("end", {}, Made).items()}


def wanted_of(
    plan: Plan, asked: Secret, work: Factors | Truncation, keys: Sequence[dict[str, str]]
) -> Wanted:
    """What the dealer is asked for."""
    return Wanted(
        plan_hash=plan.hash,
        roster={entry.name: entry.node_key for entry in plan.roster},
        collusion=plan.collusion,
        number=asked.number,
        operands=work.digest(*asked.operands),
        work=Wanted.work_of(work),
        keys=tuple(keys),
    )


def _read(name: str, answer: Any, kind: type[_Message], words: int) -> tuple[Any, Words]:
    try:
        said, found = unpack(answer)
        if found.size != words:
            raise MalformedMessage(f"expected {words} words, got {found.size}")
        return kind.from_dict(said), found
    except MalformedMessage as error:
        raise NodeRefused(name, f"{name} answers what can't be read: {error}") from None
