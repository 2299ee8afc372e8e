"""Partners' ledger heads in a round: held, checked, co-signed, and kept under our own."""

from collections.abc import Mapping, Sequence
from typing import Any

from domains.refusals import RoundRefused
from network.smpc.attempt import Context
from network.smpc.neighbours import SPARSE_ABOVE
from policies.accounting import Event
from policies.ledger import Ledger
from policies.ledger.heads import Cosignature, Note, Shown
from policies.ledger.heads import Release as Reserved
from policies.plan import Plan, Step


def held_of_peers(ledger: Ledger, plan: Plan, me: str) -> dict[str, list[int]]:
    """By peer, the sizes of the heads of its ledger that are held here."""
    peers = peers_of(plan, me)
    held = ledger.heads.held(peers.values())
    return {name: held[key] for name, key in peers.items()}


def reserved(plan: Plan, where: Context) -> Reserved:
    """The attempt as every member's ledger must have set it aside."""
    event = event_of(plan.step(where.step))
    return Reserved(plan.hash, where.step, where.release, where.attempt, event)


def shown_by_members(
    ledger: Ledger,
    plan: Plan,
    me: str,
    where: Context,
    held: Mapping[str, Sequence[int]],
    members: set[str],
    notes: Mapping[str, Any],
) -> list[Shown]:
    """What the members' ledgers show, checked; it is co-signed when the attempt is charged.

    Args:
        held: `held_of_peers` when the attempt began.

    Raises:
        HeadRefused: a ledger was rolled back or rewritten, or hasn't set this release aside.
    """
    peers = peers_of(plan, me)
    if len(plan.roster) > SPARSE_ABOVE:
        members = members | set(notes)  # not only neighbours, who alone dealt shares to us
    shown = [
        Shown(Note.read(notes.get(name), name), name, peers[name], held[name])
        for name in sorted(members & set(peers))
    ]
    ledger.heads.check(shown, reserved(plan, where))
    return shown


def keep_cosignatures(
    ledger: Ledger,
    plan: Plan,
    me: str,
    confirmed: set[str],
    cosignatures: Mapping[str, Sequence[Cosignature]],
) -> None:
    """Keep peers' signatures under this ledger's heads.

    Raises:
        RoundRefused: a domain that confirmed has not co-signed.
    """
    peers = peers_of(plan, me)
    for name in peers:
        if name in confirmed and not cosignatures.get(name):
            raise RoundRefused(f"{me}: {name} has not co-signed this ledger's head.")
    ledger.heads.keep_all(
        [(each, n, key) for n, key in peers.items() for each in cosignatures.get(n, ())]
    )


def peers_of(plan: Plan, me: str) -> dict[str, str]:
    """The other domains on the roster and their node keys."""
    return {entry.name: entry.node_key for entry in plan.roster if entry.name != me}


def event_of(step: Step) -> Event:
    """What one release of a step costs."""
    return Event(step.noise_multiplier, step.sampling_rate, 1)
