"""Partners' ledger heads in a round: held, checked, co-signed, and kept under our own."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from network.smpc.attempt import Context
from network.smpc.neighbours import SPARSE_ABOVE
from policies.accounting import Event
from policies.ledger import HeadRefused, Ledger
from policies.ledger.heads import Cosignature, Note, Shown
from policies.ledger.heads import Release as Reserved
from policies.plan import Plan, Step

_KEEPING = ThreadPoolExecutor(4, thread_name_prefix="keeping")


class Confirmed:
    """Which totals of a run this domain opened last, and which peers confirmed the first of them.

    In memory only: after a restart a peer that leaves one out is found by auditors.
    """

    def __init__(self) -> None:
        self._totals: dict[tuple[str, str, int, int], None] = {}
        self._peers: frozenset[str] = frozenset()

    def settled(self, where: Context) -> None:
        """This domain says which inputs it helps to open."""
        self._totals[_attempt(where)] = None

    def opened(self, where: Context, peers: Iterable[str]) -> None:
        """These peers signed that they help to open the same."""
        known, said = list(self._totals), _attempt(where)
        if said in known:
            self._totals = dict.fromkeys(known[known.index(said) :])
            self._peers = frozenset(peers)

    def by(self, peer: str) -> Sequence[tuple[str, str, int, int]]:
        """What a peer's ledger may name as opened last; empty: anything."""
        return tuple(self._totals) if peer in self._peers else ()


def _attempt(where: Context) -> tuple[str, str, int, int]:
    return where.plan_hash, where.step, where.release, where.attempt


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
    confirmed: Confirmed,
) -> list[Shown]:
    """What the members' ledgers show, checked; it is co-signed when the attempt is charged.

    Args:
        held: `held_of_peers` when the attempt began.
        confirmed: what the members helped to open before.

    Raises:
        HeadRefused: a ledger was rolled back or rewritten, hasn't set this release aside, or says
            that another total was opened than was here.
    """
    peers = peers_of(plan, me)
    if len(plan.roster) > SPARSE_ABOVE:
        members = members | set(notes)  # not only neighbours, who alone dealt shares to us
    shown = [
        Shown(Note.read(notes.get(name), name), name, peers[name], held[name], confirmed.by(name))
        for name in sorted(members & set(peers))
    ]
    ledger.heads.check(shown, reserved(plan, where))
    return shown


@contextmanager
def keeping_cosignatures(
    ledger: Ledger,
    plan: Plan,
    me: str,
    confirmed: set[str],
    cosignatures: Mapping[str, Sequence[Cosignature]],
) -> Iterator[None]:
    """Keep peers' signatures under this ledger's heads, while what is within waits for the disk.

    Nothing that was made within may be said unless this ends well.

    Raises:
        HeadRefused: a domain that confirmed has not co-signed; or a signature isn't a peer's, or
            not under a head of this ledger.
    """
    kept = _KEEPING.submit(_keep, ledger, plan, me, confirmed, cosignatures)
    try:
        yield
    finally:
        kept.result()


def _keep(
    ledger: Ledger,
    plan: Plan,
    me: str,
    confirmed: set[str],
    cosignatures: Mapping[str, Sequence[Cosignature]],
) -> None:
    peers = peers_of(plan, me)
    for name in peers:
        if name in confirmed and not cosignatures.get(name):
            raise HeadRefused(name, f"it has not co-signed the head of {me}'s ledger")
    ledger.heads.keep_all(
        [(each, n, key) for n, key in peers.items() for each in cosignatures.get(n, ())]
    )


def peers_of(plan: Plan, me: str) -> dict[str, str]:
    """The other domains on the roster and their node keys."""
    return {entry.name: entry.node_key for entry in plan.roster if entry.name != me}


def event_of(step: Step) -> Event:
    """What one release of a step costs."""
    return Event(step.noise_multiplier, step.sampling_rate, 1)
