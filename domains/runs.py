"""A plan being executed on a node: its approvals, its engine, the state it works on."""

import threading
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO

import numpy as np
from numpy.typing import NDArray

from domains.attempts import Attempt
from domains.cosigning import Confirmed
from domains.dataset import PrivateDataset
from domains.enclosure import Enclosure
from domains.refusals import RoundRefused
from domains.states import Octets, State, model_limit, read_state, state_limit
from domains.tensors import KeptTensors
from policies.approvals import moment
from policies.envelopes import read_consent, why_not_approved
from policies.plan import Plan, Step


class OpenRun:
    """A plan being executed here: its checked approvals, its engine, its one live attempt.

    Args:
        folder: where the states that come are kept, one at a time, in a file without a name.
        expires: when the first signature under this domain's own approval does, a second person's
            too, which doesn't travel.
    """

    tensors: KeptTensors

    def __init__(
        self,
        plan: Plan,
        approvals: Mapping[str, str],
        dataset: PrivateDataset,
        folder: Path,
        expires: str,
    ) -> None:
        self.plan = plan
        self.expires = expires
        self.approvals = dict(approvals)
        self._checked: tuple[Mapping[str, str], str] = {}, ""
        self.dataset = dataset
        self.lock = threading.Lock()
        self.attempt: Attempt | None = None
        self.state: State | None = None
        self.confirmed = Confirmed()
        self._place: IO[bytes] = TemporaryFile(dir=folder)  # noqa: SIM115
        self._enclosure: Enclosure | None = None

    def missing(self) -> str | None:
        """Why some owner on the roster has not approved this run, or not any longer."""
        # Approvals that were checked hold until the first of them expires, and every call of a
        # round asks: an envelope's check computes epsilon.
        approvals, until = self._checked
        if approvals is self.approvals and moment() < until:
            return None
        why = self._why_not_approved()
        self._checked = ({}, "") if why else (self.approvals, self.until())
        return why

    def _why_not_approved(self) -> str | None:
        for entry in self.plan.roster:
            why = why_not_approved(
                self.plan, entry.owner_key, entry.name, self.approvals.get(entry.name)
            )
            if why is not None:
                return why
        return None if moment() < self.expires else f"this approval expired at {self.expires}"

    def why_not(self, step: str, release: int, tensor: str) -> str | None:
        """Why the plan has no such release, or None.

        Args:
            tensor: what a kept step's release reveals; empty for every other step.

        Raises:
            TensorRefused: the tensor isn't one that may be revealed.
        """
        if step not in {s.name for s in self.plan.steps}:
            return f"the plan has no step '{step[:64]}'."
        definition = self.plan.step(step)
        if not 0 <= release < definition.releases:
            return (
                f"step '{step}' has {definition.releases} approved releases; "
                f"number {release} is not one of them (they count from 0)."
            )
        if bool(tensor) != (definition.kept is not None):
            return "a kept step's release reveals a tensor, and no other step's does."
        if tensor:
            self.tensors.revealable(tensor, definition)
        return None

    def until(self) -> str:
        """When the first of the approvals expires."""
        found = (
            read_consent(entry.owner_key, entry.name, self.approvals.get(entry.name))
            for entry in self.plan.roster
        )
        return min(self.expires, *(each.expires for each in found if each is not None))

    def state_of(self, state: Octets | str) -> State:
        """A state as it came, which is held from now on; or the held one, by its digest."""
        if not isinstance(state, str) and len(state):
            self.state = State("", len(state), self._place)
            self.state.take(state)
        held = self.state
        if held is None or not held.complete or (isinstance(state, str) and state != held.digest):
            raise RoundRefused("This node holds no such state; send it.")
        return held

    def hold(self, digest: str, size: int, begin: int, part: Octets) -> int:
        """See `Participation.hold`."""
        limit = max(model_limit(self.plan), *map(state_limit, self.plan.steps))
        if not 0 < size <= limit:
            raise RoundRefused(f"The state has {size} bytes; at most {limit} pass.")
        if begin == 0:
            self.state = State(digest, size, self._place)
        held = self.state
        if held is None or (held.digest, held.size, held.held) != (digest, size, begin):
            raise RoundRefused("The parts of a state come in order, from its beginning.")
        try:
            held.take(part)
        except RoundRefused:
            if held.complete:
                self.state = None
            raise
        return held.held

    def enclosure(self) -> Enclosure:
        if self._enclosure is not None and not self._enclosure.alive:
            self.close_enclosure()
        if self._enclosure is None:
            self._enclosure = self.dataset.enclosure(self.plan.to_json(), self._place)
        return self._enclosure

    def sum_of(self, step: Step, state: Octets | str) -> NDArray[np.int64]:
        """This domain's part of a kept step; all users take part, so no coins are tossed."""
        tensors = read_state(step, self.state_of(state).file)
        everybody = np.ones(self.dataset.users, dtype=bool)
        total = np.zeros(step.width, dtype=np.int64)
        self.enclosure().private_sum(step.name, tensors, everybody).add_to(total)
        return total

    def close_enclosure(self) -> None:
        if self._enclosure is not None:
            self._enclosure.close()
            self._enclosure = None
