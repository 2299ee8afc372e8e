"""One attempt as a domain keeps it: its keys in memory, what it answered on the disk."""

import hashlib
import mmap
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from domains.coming_noise import ComingNoise
from domains.cosigning import event_of
from network.smpc.attempt import Context
from policies.ledger import Ledger
from policies.plan import Plan, Step

_MAPPED_BYTES = 2**20
"""What an attempt's file holds beyond this is mapped, not read."""


@dataclass
class Attempt:
    """The live attempt: its keys and vector are in memory only and die with it."""

    context: Context
    party: Any
    """The protocol's side of it: `Wire.party`."""
    held: Mapping[str, Sequence[int]]
    """By peer, the sizes of the ledger heads held of it when the attempt began."""
    noise: ComingNoise | None = None
    value: NDArray[np.int64] | None = None

    def erase(self) -> None:
        self.party.abandon()
        if self.noise is not None:
            self.noise.erase()
        if self.value is not None:
            self.value[:] = 0
            self.value = None


class AttemptFiles:
    """What this domain answered in one attempt, as files; see `network.smpc.aggregation.Store`."""

    def __init__(self, folder: Path, context: Context) -> None:
        self._folder = folder
        # The ledger lets an attempt reveal one thing only, so its files need no tensor's name.
        self._digest = hashlib.sha256(replace(context, tensor="").bytes).hexdigest()

    def read(self, name: str) -> bytes | mmap.mmap | None:
        path = self._path(name)
        if not path.exists():
            return None
        if path.stat().st_size <= _MAPPED_BYTES:
            return path.read_bytes()
        with path.open("rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)

    def write(self, name: str, content: bytes | memoryview) -> None:
        write_durably(self._path(name), content)

    def erase(self, name: str) -> None:
        path = self._path(name)
        if path.exists():
            # What was written may have been copied by the file system; that is the owner's disk.
            _overwrite(path)
            path.unlink()

    def remove(self, name: str) -> None:
        """Forget what may be known to others anyway."""
        self._path(name).unlink(missing_ok=True)

    def _path(self, name: str) -> Path:
        return self._folder / f"{self._digest}.{name}"


class Attempts:
    """What became of this domain's attempts: in its ledger, and as files of what it answered.

    Args:
        folder: of the files (0700).
    """

    def __init__(self, ledger: Ledger, folder: Path) -> None:
        self._ledger, self._folder = ledger, folder

    def files(self, context: Context) -> AttemptFiles:
        """Where an attempt's answers are."""
        return AttemptFiles(self._folder, context)

    def state_of(self, context: Context) -> str | None:
        """'reserved', 'charged' or 'void'; None: nothing was reserved."""
        return self._ledger.attempt(
            context.plan_hash, context.step, context.release, context.attempt
        )

    def give_up_charged(self, plan_hash: str) -> None:
        """Erase what is held of earlier attempts: peers' shares, and inputs that were opened.

        So the disk holds one vector of a run, however many releases it has.
        """
        for step, release, attempt, state in self._ledger.attempts(plan_hash):
            if state == "charged":
                files = self.files(Context(plan_hash, step, release, attempt))
                files.erase("held")
                files.remove("masked")

    def void(self, context: Context, reason: str) -> None:
        """Give back what an attempt reserved, if nothing was charged; its answers are erased."""
        if self.state_of(context) != "reserved":
            return
        for name in ("held", "masked", "receipt"):
            self.files(context).erase(name)
        self._ledger.void(context.plan_hash, context.step, context.release, context.attempt, reason)

    def spend(self, context: Context) -> None:
        """Charge an attempt that will share nothing, since how it ended was seen."""
        for name in ("held", "masked", "receipt"):
            self.files(context).erase(name)
        nothing = hashlib.sha256(b"").hexdigest()
        self._ledger.charge(
            context.plan_hash, context.step, context.release, context.attempt, nothing
        )

    def spend_release(self, plan: Plan, step: Step, until: str) -> None:
        """Charge a release of a kept step whose sharing took too long: that was seen, too.

        One that nothing was revealed in, else a repeat.

        Args:
            until: when the first of the approvals expires.

        Raises:
            LedgerError: no release and no spare attempt is left.
        """
        latest: dict[int, tuple[int, str]] = {}
        for name, release, attempt, state in self._ledger.attempts(plan.hash):
            if name == step.name:
                latest[release] = max(latest.get(release, (-1, "")), (attempt, state))
        unspent = (r for r in range(step.releases) if latest.get(r, (-1, "void"))[1] == "void")
        release = next(unspent, 0)
        attempt = latest.get(release, (-1, ""))[0] + 1
        self._ledger.reserve(plan.hash, step.name, release, attempt, event_of(step), until)
        self.spend(Context(plan.hash, step.name, release, attempt))

    def void_what_a_crash_left(self) -> None:
        """Void whatever is reserved: its keys died with the process."""
        for plan in self._ledger.plans():
            for step, release, attempt, state in self._ledger.attempts(plan.plan_hash):
                if state == "reserved":
                    context = Context(plan.plan_hash, step, release, attempt)
                    self.void(context, "the node stopped before revealing")


def _overwrite(path: Path) -> None:
    left = path.stat().st_size
    with path.open("r+b") as file:
        while left > 0:
            left -= file.write(bytes(min(left, _MAPPED_BYTES)))


def write_durably(path: Path, content: bytes | memoryview) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        # The file and its folder at once: the disk then writes both in one go.
        folder = _FOLDERS.submit(_sync_folder, path.parent)
        os.fsync(file.fileno())
        folder.result()


def _sync_folder(path: Path) -> None:
    directory = os.open(path, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


_FOLDERS = ThreadPoolExecutor(1, thread_name_prefix="folders")
