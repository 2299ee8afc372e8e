"""Carrying one secret product between the domains and the dealer; `network.smpc.triples`.

Whoever carries sees keys, sealed seeds, coins and openings, all of them uniform or public, and all
of them signed, so that changing any of it only makes the domains refuse.
"""

import os
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from network.dealer import Wanted
from network.smpc.triples import Factors, unpack
from policies.plan import Plan

Words = NDArray[np.uint64]
Everywhere = Callable[[str, Mapping[str, tuple[Mapping[str, Any], Words]]], dict[str, Any]]
"""(phase, what each domain is told) -> their answers, as octets."""
Deal = Callable[[Wanted], tuple[dict[str, Any], Words]]
"""Asks the dealer for triples: a `Dealt` as JSON-able values, and the corrections, flat."""

_NONE = np.zeros(0, np.uint64)


def carry_product(
    plan: Plan, deal: Deal, factors: Factors, x: str, y: str, tell: Everywhere
) -> dict[str, Any]:
    """Multiply two tensors; gives what each domain says it made.

    Args:
        x, y: the tensors' names.

    Raises:
        DealerError: no triples came.
        NodeRefused, NodeUnreachable: a domain refused, or isn't there; nothing was made there.
        MalformedMessage: a domain's answer can't be read.
    """
    names = sorted(entry.name for entry in plan.roster)
    number = int.from_bytes(os.urandom(4), "big")

    def everywhere(phase: str, said: Mapping[str, Any]) -> dict[str, tuple[Any, Words]]:
        answers = tell(phase, dict.fromkeys(names, (said, _NONE)))
        return {name: unpack(answers[name]) for name in names}

    factor = {"x": x, "y": y, "matrices": factors.matrices, "number": number}
    keys = [said for said, _ in everywhere("begin", factor).values()]
    wanted = Wanted(
        plan_hash=plan.hash,
        roster={entry.name: entry.node_key for entry in plan.roster},
        collusion=plan.collusion,
        number=number,
        operands=factors.digest(x, y),
        x=factors.x,
        y=factors.y,
        matrices=factors.matrices,
        keys=tuple(keys),
    )
    dealt, corrections = deal(wanted)
    told = {"keys": keys, "dealt": dealt}
    # Only the first domain needs the corrections; the others have their digest.
    each = {name: (told, corrections if name == names[0] else _NONE) for name in names}
    coins = [unpack(answer)[0] for answer in tell("triple", each).values()]
    for phase, said in (("opening", {"coins": coins}), ("check", {})):
        heard = everywhere(phase, said)
        for sender, (message, words) in heard.items():
            others = {name: ({"said": message}, words) for name in names if name != sender}
            tell("hear", others)
    return {name: said for name, (said, _) in everywhere("end", {}).items()}
