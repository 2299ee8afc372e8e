"""The runs that are open on a node, begun with every owner's approval and only while these hold."""

import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from numpy.typing import NDArray

from domains.attempts import Attempts
from domains.dataset import PrivateDataset
from domains.enclosure import SumFailed
from domains.kept import Memory
from domains.refusals import RoundRefused
from domains.runs import OpenRun
from domains.states import Octets
from domains.tensors import KeptTensors
from policies.ledger import Ledger
from policies.plan import Plan, Step


class OpenRuns:
    """A node's open runs; iterating gives them.

    Args:
        name, signing_key, ledger, folder, why_not_roster, spu: as for `Participation`.
        attempts: where a sharing that took too long is charged.
    """

    def __init__(
        self,
        name: str,
        signing_key: Ed25519PrivateKey,
        attempts: Attempts,
        ledger: Ledger,
        folder: Path,
        why_not_roster: Callable[[Plan], str | None],
        spu: Path | None,
    ) -> None:
        self._name, self._signing_key = name, signing_key
        self._attempts = attempts
        self._ledger, self._why_not_roster = ledger, why_not_roster
        self._folder = folder
        self._runs: dict[str, OpenRun] = {}
        self._memory, self._spu = Memory(), spu
        self._lock = threading.Lock()

    def __iter__(self) -> Iterator[OpenRun]:
        with self._lock:
            return iter(list(self._runs.values()))

    def open(self, plan: Plan, approvals: Mapping[str, str], dataset: PrivateDataset) -> None:
        """Begin or take up again the run of a plan that every owner on its roster approved.

        Args:
            plan: the plan as submitted here.
            approvals: every roster member's signed approval, or the signed envelope that covers
                the plan, by name.
            dataset: the data set the plan names.

        Raises:
            RoundRefused: not approved here, or a partner's signature is missing or wrong.
        """
        status = self._ledger.status(plan.hash)
        if status != "approved":
            raise RoundRefused(f"{self._name}: this plan is {status} here, so it can't run.")
        until = self._ledger.approved_until(plan.hash)
        run = OpenRun(plan, approvals, dataset, self._folder, until)
        run.tensors = KeptTensors(
            self._name, plan, self._signing_key, self._sum_of(run), self._memory, self._spu
        )
        missing = run.missing() or self._why_not_roster(plan)
        if missing is not None:
            raise RoundRefused(f"{self._name}: {missing}.")
        with self._lock:
            # Approvals may have been given anew since it was opened first.
            self._runs.setdefault(plan.hash, run).approvals = run.approvals
            for other in self._runs.values():
                self._free_if_ended(other)

    def of(self, plan_hash: str) -> OpenRun:
        """The open run of a plan.

        Raises:
            RoundRefused: it isn't open, or not approved (any longer) by all owners.
        """
        run = self.asked_for(plan_hash)
        status = self._ledger.status(plan_hash)
        if status != "approved":
            raise RoundRefused(f"{self._name}: this plan is {status} here: {self._why(plan_hash)}")
        missing = run.missing() or self._why_not_roster(run.plan)
        if missing is not None:
            raise RoundRefused(f"{self._name}: {missing}.")
        return run

    def asked_for(self, plan_hash: str) -> OpenRun:
        """The same, where `of` gave it to this very call already.

        Raises:
            RoundRefused: it isn't open.
        """
        run = self._runs.get(plan_hash)
        if run is None:
            raise RoundRefused(
                f"{self._name}: no run of this plan is open here. Take it up again: "
                "coterie run resume, or fed.tensors(plan) for tensors in shares"
            )
        return run

    def _sum_of(self, run: OpenRun) -> Callable[[Step, Octets | str], NDArray[np.int64]]:
        def of(step: Step, state: Octets | str) -> NDArray[np.int64]:
            try:
                return run.sum_of(step, state)
            except SumFailed:
                self._attempts.spend_release(run.plan, step, run.until())
                raise

        return of

    def _why(self, plan_hash: str) -> str:
        """The reason of the last decision on a plan."""
        found = self._ledger.plan(plan_hash)
        return "never submitted" if found is None else found.reason

    def remove(self, plan_hash: str) -> None:
        """Forget a run that has ended."""
        with self._lock:
            del self._runs[plan_hash]

    def _free_if_ended(self, run: OpenRun) -> None:
        """Free the memory of a run that can't go on; one that is at work is left to the next."""
        approved = self._ledger.status(run.plan.hash) == "approved"
        if (approved and run.missing() is None) or not run.lock.acquire(blocking=False):
            return
        try:
            run.tensors.clear()
            run.close_enclosure()
        finally:
            run.lock.release()
