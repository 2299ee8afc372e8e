"""The ledger under load, kill -9 and length.

    python -m benchmarks.ledger kills [--url postgresql://...]   # default: SQLite
    python -m benchmarks.ledger kills --postgres                 # starts one of its own
    python -m benchmarks.ledger speed [--folder FOLDER]
    python -m benchmarks.ledger waste [--mixes 200] [--seed 0]

`kills`: 200 plans from 8 processes against one budget that can't bear them all; 100 times one of
them is killed (-9) at a random moment and started again. After every kill the verifier must agree,
the budget must hold by the filter, by the verifier and by dp-accounting's RDP composition, and
every step that a process saw returned must be in the ledger. To reach: no violation.

`speed`: see `benchmarks.ledger_speed`.

`waste`: see `benchmarks.filter_waste`.
"""

import argparse
import hashlib
import multiprocessing
import os
import random
import signal
import tempfile
import time
from collections import Counter
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from dp_accounting.dp_event import GaussianDpEvent
from dp_accounting.rdp import RdpAccountant

from benchmarks import filter_waste, ledger_speed
from policies.accounting import Event
from policies.approvals import owner_key_hex, sign_approval
from policies.ledger import BudgetExceeded, Ledger
from policies.verify import verify
from tests.policies.postgres import new_database, running_postgres

NODE = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
OWNER = Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33)))
CAP, DELTA = 8.0, 1e-5
ROUND = Event(20.0, 1.0, 1)
RELEASES = 8

Step = tuple[str, str, int, int]  # (what returned, plan, release, attempt)


class Violation(Exception):
    """The ledger broke a promise; the text says which."""


@dataclass
class Storm:
    """What a storm of killed processes left behind.

    Attributes:
        kills: how often a process was killed.
        steps: how many steps were seen to return.
        refused: plans that the budget had no room for.
        entries: in the ledger at the end.
        seconds: wall time of the whole.
    """

    kills: int = 0
    steps: Counter[str] = field(default_factory=Counter)
    refused: int = 0
    entries: int = 0
    epsilon: float = 0.0
    seconds: float = 0.0


def storm(url: str, plans: int, processes: int, kills: int, seed: int) -> Storm:
    """Run plans from many processes at once, kill some, and check after every kill.

    Raises:
        Violation: see there.
    """
    dice = random.Random(seed)
    began, found = time.monotonic(), Storm()
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["benchmarks.ledger"])
    ledger = open_ledger(url)
    shares = [list(range(worker, plans, processes)) for worker in range(processes)]
    workers = [_Worker(context, url, share) for share in shares]
    told: set[Step] = set()
    while any(not worker.done for worker in workers) and found.kills < kills:
        victim = dice.choice([worker for worker in workers if not worker.done])
        told |= victim.listen(dice.uniform(0.0, 0.1))
        if victim.kill():
            found.kills += 1
            told |= victim.drain()
            # The others stand still, in the middle of whatever they do, until it is checked.
            for worker in workers:
                worker.signal(signal.SIGSTOP)
            _check(url, ledger, told)
            for worker in workers:
                worker.signal(signal.SIGCONT)
        victim.start()
    for worker in workers:
        told |= worker.finish()
    found.epsilon, found.entries = _check(url, ledger, told)
    ledger.dispose()
    found.steps = Counter(what for what, *_ in told)
    found.refused = found.steps.pop("refused", 0)
    found.seconds = time.monotonic() - began
    return found


class _Worker:
    """One process with its share of the plans; started again after every kill."""

    def __init__(
        self, context: multiprocessing.context.ForkServerContext, url: str, share: list[int]
    ) -> None:
        self._context, self._url, self._share = context, url, share
        self._process: BaseProcess | None = None
        self._pipe: Connection | None = None
        self.done = False
        self.start()

    def start(self) -> None:
        if self.done or self._process is not None:
            return
        self._pipe, theirs = self._context.Pipe(duplex=False)
        self._process = self._context.Process(
            target=work, args=(self._url, self._share, theirs), daemon=True
        )
        self._process.start()
        theirs.close()

    def listen(self, seconds: float) -> set[Step]:
        """What it says within so many seconds."""
        until, told = time.monotonic() + seconds, set()
        while not self.done and (left := until - time.monotonic()) > 0:
            assert self._pipe is not None
            if self._pipe.poll(left):
                told |= self._receive()
        return told

    def kill(self) -> bool:
        if self._process is None or self.done:
            return False
        self._process.kill()
        self._process.join()
        self._process = None
        return True

    def signal(self, number: int) -> None:
        if self._process is not None and self._process.pid and self._process.is_alive():
            with suppress(ProcessLookupError):  # it may have come to its end meanwhile
                os.kill(self._process.pid, number)

    def drain(self) -> set[Step]:
        """What it had said before it died."""
        told: set[Step] = set()
        while self._pipe is not None and self._pipe.poll():
            if not (more := self._receive()):
                break
            told |= more
        return told

    def finish(self) -> set[Step]:
        told: set[Step] = set()
        while not self.done:
            told |= self.listen(1.0)
        return told

    def _receive(self) -> set[Step]:
        assert self._pipe is not None
        try:
            said = self._pipe.recv()
        except (EOFError, OSError):
            return set()
        if said == "done":
            self.done = True
            return set()
        return {said}


def work(url: str, share: list[int], pipe: Connection) -> None:
    """Bring every plan of a share to its end, saying what returned; takes up where it was."""
    ledger = open_ledger(url)
    for number in share:
        plan = plan_hash(number)
        if ledger.status(plan) in ("unknown", "pending") and not _approve(ledger, plan):
            pipe.send(("refused", plan, 0, 0))
            continue
        if ledger.status(plan) == "approved":
            pipe.send(("approved", plan, 0, 0))
            _release_all(ledger, plan, pipe)
    pipe.send("done")


def _approve(ledger: Ledger, plan: str) -> bool:
    events = [Event(ROUND.noise_multiplier, ROUND.sampling_rate, RELEASES + 1)]
    ledger.submit(plan, "storm", "s" * 64, "shoppers", events, {}, spare_attempts=1)
    signature = sign_approval(OWNER, plan, "north")
    try:
        ledger.approve(plan, "owner", owner_key_hex(OWNER), signature, "e" * 64)
    except BudgetExceeded:
        return False
    return True


def _release_all(ledger: Ledger, plan: str, pipe: Connection) -> None:
    states = {(release, attempt): s for _, release, attempt, s in ledger.attempts(plan)}
    for (release, attempt), state in states.items():
        if state == "reserved":  # what a killed process left: its share was never sent
            ledger.void(plan, "train", release, attempt, "killed")
    charged = {release for (release, _), state in states.items() if state == "charged"}
    for release in sorted(set(range(RELEASES)) - charged):
        attempt = 1 + max((a for r, a in states if r == release), default=-1)
        where = (plan, "train", release, attempt)
        ledger.reserve(*where, ROUND)
        pipe.send(("reserved", plan, release, attempt))
        ledger.charge(*where, share_of(plan, release, attempt))
        pipe.send(("charged", plan, release, attempt))
        ledger.settle(*where, share_of(plan, release, attempt))
        pipe.send(("settled", plan, release, attempt))
    ledger.close(plan, "done")
    pipe.send(("closed", plan, 0, 0))


def _check(url: str, ledger: Ledger, told: set[Step]) -> tuple[float, int]:
    verdict = verify(url, owner_key_hex(NODE), owner_key_hex(OWNER))
    if not verdict.ok:
        raise Violation(verdict.text)
    budget = ledger.budget("shoppers")
    attempts = {
        (plan.plan_hash, release, attempt): state
        for plan in ledger.plans()
        for _, release, attempt, state in ledger.attempts(plan.plan_hash)
    }
    if max(budget.spent, budget.held, verdict.epsilon["shoppers"], rdp(budget.releases)) > CAP:
        raise Violation(f"over budget: {budget}, verifier {verdict.epsilon}")
    fits = {"reserved": ("reserved", "charged", "void"), "charged": ("charged",)}
    fits["settled"] = fits["charged"]
    for what, plan, release, attempt in told:
        if what in fits and attempts.get((plan, release, attempt), "lost") not in fits[what]:
            raise Violation(f"{what} {plan[:8]} {release}/{attempt} was seen to return, now lost")
    return budget.spent, verdict.entries


def rdp(releases: int) -> float:
    """Full RDP composition at its best order, by dp-accounting: a second accountant."""
    accountant = RdpAccountant()
    if releases:
        accountant.compose(GaussianDpEvent(ROUND.noise_multiplier), releases)
    return float(accountant.get_epsilon(DELTA))


def open_ledger(url: str) -> Ledger:
    ledger = Ledger(url, "north", NODE)
    ledger.open_budget("shoppers", CAP, DELTA)
    return ledger


def plan_hash(number: int) -> str:
    return hashlib.sha256(f"plan {number}".encode()).hexdigest()


def share_of(plan: str, release: int, attempt: int) -> str:
    return hashlib.sha256(f"{plan} {release} {attempt}".encode()).hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser(description="The ledger under load, kill -9 and length.")
    parser.add_argument("what", choices=("kills", "speed", "waste"))
    parser.add_argument("--url", help="a fresh database; default: SQLite")
    parser.add_argument("--postgres", action="store_true", help="start a Postgres for it")
    parser.add_argument("--folder", type=Path, help="on the disk to measure")
    parser.add_argument("--plans", type=int, default=200)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--mixes", type=int, default=200, help="per cap and delta")
    chosen = parser.parse_args()
    if chosen.what == "waste":
        filter_waste.report(chosen.mixes, chosen.seed)
        return
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(dir=chosen.folder))
        if chosen.what == "speed":
            ledger_speed.report(Path(folder))
            return
        url = chosen.url or f"sqlite:///{folder}/ledger.db"
        if chosen.postgres:
            url = new_database(stack.enter_context(running_postgres()))
        print(storm(url, chosen.plans, 8, chosen.kills, chosen.seed))


if __name__ == "__main__":
    main()
