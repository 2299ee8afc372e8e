"""What a domain's population has paid, and for what: append-only, hash-chained, signed.

Every decision and every charge is one entry. An entry carries the hash of the one before it and the
node's signature, so that a change anywhere shows (`policies.verify` replays it without this code).
Nothing leaves a node before its entry is on the disk: `reserve` before anything random is drawn,
`charge` before a share is sent. What a crash leaves undecided stays reserved, which counts as
spent. The other tables are indexes over the chain, changed in the same transaction.
"""

from policies.ledger.book import Ledger
from policies.ledger.budgets import Budget
from policies.ledger.chain import GENESIS, Entry
from policies.ledger.commitments import Commitment
from policies.ledger.errors import (
    AlreadyReleased,
    AttemptOpen,
    AttemptsExhausted,
    BadSignature,
    BudgetExceeded,
    HeadRefused,
    LedgerError,
    LedgerUnavailable,
    NotApproved,
    NotReserved,
    UnknownPopulation,
    WrongStatus,
)
from policies.ledger.overview import EntryFilter, Overview
from policies.ledger.plans import PlanRecord

__all__ = [
    "GENESIS",
    "AlreadyReleased",
    "AttemptOpen",
    "AttemptsExhausted",
    "BadSignature",
    "Budget",
    "BudgetExceeded",
    "Commitment",
    "Entry",
    "EntryFilter",
    "HeadRefused",
    "Ledger",
    "LedgerError",
    "LedgerUnavailable",
    "NotApproved",
    "NotReserved",
    "Overview",
    "PlanRecord",
    "UnknownPopulation",
    "WrongStatus",
]
