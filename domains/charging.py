"""An attempt's masked input: charged before it leaves, once every member's ledger is in order.

Answers are on the disk before the charge is, and the charge is before anything is sent. What the
members' ledgers showed is co-signed in the transaction that charges: one wait for the disk each.
"""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

from domains.attempts import Attempt
from domains.cosigning import Confirmed, reserved, shown_by_members
from domains.refusals import RoundRefused
from network.smpc.messages import Receipt
from policies.ledger import HeadRefused, Ledger
from policies.plan import Plan


def charged_input(
    ledger: Ledger,
    plan: Plan,
    me: str,
    current: Attempt,
    sealed: Sequence[Any],
    notes: Mapping[str, Any],
    confirmed: Confirmed,
) -> tuple[Receipt, NDArray]:
    """This domain's masked input and its receipt.

    Args:
        current: the live attempt, whose value is used up.
        sealed, notes: see `Participation.reveal`.
        confirmed: what the members helped to open before.

    Raises:
        HeadRefused: a member's ledger was rolled back or rewritten, or hasn't set this release
            aside; before anything was masked.
        RoundRefused: the attempt's noise or sum is gone, or it was masked among other members.
    """
    where, members = current.context, {each.sender for each in sealed}
    try:
        shown = shown_by_members(ledger, plan, me, where, current.held, members, notes, confirmed)
    except HeadRefused as refused:
        ledger.heads.object_to(plan.hash, str(refused))
        raise
    try:
        with current.files:
            receipt, elements = current.party.mask(current.noised(), sealed)
    except Exception:
        # What was shown is held against whoever showed it, whatever becomes of the attempt.
        ledger.heads.cosign_all(shown, reserved(plan, where))
        raise
    if not set(receipt.members) - {me} <= members:
        # Asked before, among others too, whose ledgers aren't shown now.
        raise RoundRefused(f"{me}: this attempt was masked among other members. Start the next.")
    digest = hashlib.sha256(receipt.digest).hexdigest()
    ledger.charge(plan.hash, where.step, where.release, where.attempt, digest, shown)
    return receipt, elements
