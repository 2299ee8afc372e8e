"""The charge protocol over random interleavings; its invariants are those of docs/ledger.md."""

import json
import tempfile
from collections import Counter
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from policies.accounting import Event, RenyiFilter
from policies.approvals import owner_key_hex, sign_approval
from policies.ledger import Ledger, LedgerError
from policies.verify import verify

NODE, OWNER = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
CAP, DELTA = 2.5, 1e-5
TRAIN, COUNT = Event(4.0, 1.0, 1), Event(6.0, 0.2, 1)
PLANS = [f"{number:064x}" for number in range(3)]
WHERE = st.tuples(
    st.sampled_from(PLANS),
    st.sampled_from(["train", "count"]),
    st.integers(0, 2),
    st.integers(0, 2),
)
PLAN, SHARE = st.sampled_from(PLANS), st.sampled_from(["5" * 64, "6" * 64])


class ChargeProtocol(RuleBasedStateMachine):
    """One domain's ledger, and beside it what a careful bystander writes down."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "ledger.db"
        self.states: dict[tuple[str, str, int, int], str] = {}
        self.shares: dict[tuple[str, str, int, int], set[str]] = {}
        self.opened: dict[tuple[str, str, int, int], set[str]] = {}
        self.approved: set[str] = set()
        self.head = 0
        self.open()

    def open(self) -> None:
        self.ledger = Ledger(f"sqlite:///{self.path}", "north", NODE)
        self.ledger.open_budget("shoppers", CAP, DELTA)

    def teardown(self) -> None:
        self.ledger.dispose()
        self.folder.cleanup()

    def tried(self, step: str, *arguments: object) -> bool:
        """Whether the ledger did it; a refusal must change nothing."""
        before = self.ledger.head()
        try:
            getattr(self.ledger, step)(*arguments)
        except LedgerError:
            assert self.ledger.head() == before
            return False
        return True

    @rule(plan=PLAN, spare=st.integers(0, 1))
    def submit(self, plan: str, spare: int) -> None:
        events = [Event(4.0, 1.0, 2 + spare), Event(6.0, 0.2, 1)]
        self.tried("submit", plan, "plan", "s", "shoppers", events, {}, spare)

    @rule(plan=PLAN)
    def approve(self, plan: str) -> None:
        signature = sign_approval(OWNER, plan, "north")
        if self.tried("approve", plan, "owner", owner_key_hex(OWNER), signature, "e" * 64):
            self.approved.add(plan)

    @rule(plan=PLAN)
    def deny(self, plan: str) -> None:
        self.tried("deny", plan, "owner", "no")

    @rule(plan=PLAN)
    def refuse(self, plan: str) -> None:
        self.tried("refuse", plan, "rule", "why")

    @rule(plan=PLAN)
    def revoke(self, plan: str) -> None:
        if self.tried("close", plan, "revoked"):
            self.approved.discard(plan)
            for where, state in self.states.items():
                if where[0] == plan and state == "reserved":
                    self.states[where] = "void"

    @rule(where=WHERE)
    def reserve(self, where: tuple[str, str, int, int]) -> None:
        event = TRAIN if where[1] == "train" else COUNT
        if self.tried("reserve", *where, event):
            assert where[0] in self.approved
            assert where not in self.states
            self.states[where] = "reserved"

    @rule(where=WHERE, share=SHARE)
    def charge(self, where: tuple[str, str, int, int], share: str) -> None:
        if self.tried("charge", *where, share):
            assert self.states[where] in ("reserved", "charged")
            self.states[where] = "charged"
            self.shares.setdefault(where, set()).add(share)

    @rule(where=WHERE, inputs=SHARE)
    def settle(self, where: tuple[str, str, int, int], inputs: str) -> None:
        if self.tried("settle", *where, inputs):
            assert self.states[where] == "charged"
            self.opened.setdefault(where, set()).add(inputs)

    @rule(where=WHERE)
    def void(self, where: tuple[str, str, int, int]) -> None:
        if self.tried("void", *where, "peer away"):
            assert self.states[where] in ("reserved", "void")
            self.states[where] = "void"

    @precondition(lambda self: any(state == "reserved" for state in self.states.values()))
    @rule(data=st.data())
    def go_on(self, data: st.DataObject) -> None:
        """Charge and settle something open, so that runs come far."""
        where = data.draw(st.sampled_from([w for w, s in self.states.items() if s == "reserved"]))
        self.charge(where, "5" * 64)
        self.settle(where, "6" * 64)

    @rule()
    def crash_and_resume(self) -> None:
        """The process dies; the next one voids what was reserved, as a node does at its start."""
        self.ledger.dispose()
        self.open()
        for where, state in list(self.states.items()):
            if state == "reserved":
                self.ledger.void(*where, "the node stopped")
                self.states[where] = "void"

    @invariant()
    def nothing_is_forgotten(self) -> None:
        found = {
            (plan, step, release, attempt): state
            for plan in PLANS
            for step, release, attempt, state in self.ledger.attempts(plan)
        }
        assert found == self.states
        size, _ = self.ledger.head()
        assert size >= self.head
        self.head = size

    @invariant()
    def never_over_budget_and_held_is_enough(self) -> None:
        budget = self.ledger.budget("shoppers")
        used = [
            TRAIN if step == "train" else COUNT
            for (_, step, _, _), state in self.states.items()
            if state != "void"
        ]
        assert budget.spent == RenyiFilter.of_cap(CAP, DELTA).epsilon(used)
        assert budget.spent <= budget.held <= CAP

    @invariant()
    def once(self) -> None:
        assert all(len(shares) == 1 for shares in (*self.shares.values(), *self.opened.values()))
        kinds = Counter(
            (
                entry.kind,
                *(json.loads(entry.body)[k] for k in ("plan", "step", "release", "attempt")),
            )
            for entry in self.ledger.entries()
            if entry.kind in ("reservation", "charge", "release", "void")
        )
        assert max(kinds.values(), default=1) == 1

    @invariant()
    def the_verifier_agrees(self) -> None:
        verdict = verify(self.path, owner_key_hex(NODE), owner_key_hex(OWNER))
        assert verdict.ok, verdict.text
        spent = self.ledger.budget("shoppers").spent
        assert abs(verdict.epsilon["shoppers"] - spent) <= 1e-9 * max(1.0, spent)


ChargeProtocol.TestCase.settings = settings(
    max_examples=12,
    stateful_step_count=30,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
TestChargeProtocol = ChargeProtocol.TestCase


def test_approvals_fill_the_budget_but_do_not_pass_it() -> None:
    """The cap of the machine above is one that its plans reach."""
    filter_ = RenyiFilter.of_cap(CAP, DELTA)
    whole = [Event(4.0, 1.0, 2), COUNT]
    assert filter_.epsilon(whole) < CAP < filter_.epsilon(whole * 3)
