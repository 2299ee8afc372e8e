"""One ledger of shoppers' budget: what its tests do with it."""

from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from policies.accounting import Event, RenyiFilter
from policies.approvals import owner_key_hex, sign_approval
from policies.ledger import Ledger

DELTA = 1e-5
FILTER = RenyiFilter.of_cap(8.0, DELTA)
ROUND = Event(4.0, 1.0, 1)
COUNT = Event(8.0, 1.0, 1)
SHARE, OTHER_SHARE, EXPLANATION = "5" * 64, "6" * 64, "e" * 64
NODE_KEY = bytes(range(32))
OWNER = Ed25519PrivateKey.generate()


def open_ledger(path: Path) -> Ledger:
    key = Ed25519PrivateKey.from_private_bytes(NODE_KEY)
    return Ledger(f"sqlite:///{path}", "alpha", key)


def node_key_hex() -> str:
    return owner_key_hex(Ed25519PrivateKey.from_private_bytes(NODE_KEY))


def plan(number: int) -> str:
    return f"{number:064x}"


def submit(ledger: Ledger, plan_hash: str, *events: Event, spare_attempts: int = 0) -> None:
    ledger.submit(plan_hash, "a plan", "s" * 64, "shoppers", events, {"steps": 1}, spare_attempts)


def approve(ledger: Ledger, plan_hash: str) -> None:
    signature = sign_approval(OWNER, plan_hash, "alpha")
    ledger.approve(plan_hash, "owner", owner_key_hex(OWNER), signature, EXPLANATION, "fine")


def approved(ledger: Ledger, number: int, *events: Event, spare_attempts: int = 0) -> str:
    submit(ledger, plan(number), *events, spare_attempts=spare_attempts)
    approve(ledger, plan(number))
    return plan(number)


def release(ledger: Ledger, plan_hash: str, index: int, attempt: int = 0) -> None:
    ledger.reserve(plan_hash, "train", index, attempt, ROUND)
    ledger.charge(plan_hash, "train", index, attempt, SHARE)
