"""One attempt as a domain keeps it: its keys in memory, what it answered on the disk."""

import contextlib
import hashlib
import mmap
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from domains.coming_noise import ComingNoise
from domains.cosigning import event_of
from domains.refusals import RoundRefused
from network.smpc.attempt import Context
from policies.ledger import Ledger
from policies.ledger.charges import NOTHING
from policies.plan import Plan, Step

_MAPPED_BYTES = 2**24
"""An attempt's file beyond this is mapped, not read, and so never written over."""
_LONG_BYTES = 2**16
"""What is shorter is synced by who waits for it: that takes less than another thread's turn."""
_ZEROS = bytes(2**20)


@dataclass
class Attempt:
    """The live attempt: its keys and vector are in memory only and die with it."""

    context: Context
    party: Any
    """The protocol's side of it: `Wire.party`."""
    files: "AttemptFiles"
    held: Mapping[str, Sequence[int]]
    """By peer, the sizes of the ledger heads held of it when the attempt began."""
    noise: ComingNoise | None = None
    summed: Callable[[], NDArray[np.int64]] | None = None
    """From `share` on: gives the noised sum, once."""
    value: NDArray[np.int64] | None = None
    """The noised sum, once it was asked for."""
    spent: bool = False
    """Whether its end told something, so that it isn't given back."""
    over: bool = False
    """Whether it was erased."""

    @property
    def shared(self) -> bool:
        """Whether its sum was made."""
        return self.summed is not None or self.value is not None

    def noised(self) -> NDArray[np.int64]:
        """The noised sum of an attempt that was shared: int64 [P]; waits for its noise.

        Raises:
            RoundRefused: the noise or the sum is gone.
        """
        if self.value is None and self.summed is not None:
            self.value = self.summed()
        if self.value is None:
            raise RoundRefused("This attempt's sum is gone. Start the next attempt.")
        return self.value

    def erase(self) -> None:
        self.over = True
        self.party.abandon()
        if self.noise is not None:
            self.noise.erase()
        self.summed = None
        if self.value is not None:
            self.value[:] = 0
            self.value = None


class AttemptFiles:
    """What this domain answered in one attempt, as files; see `network.smpc.aggregation.Store`.

    What is written within `with files:` is on the disk when that ends, and nothing of it may be
    said to anyone before: the files go there together, while the caller does other work.
    """

    def __init__(self, folder: Path, context: Context) -> None:
        self._folder = folder
        self._spare = folder / f"{context.plan_hash}.spare"
        self._written: list[Path] = []
        self._short: list[Callable[[], object]] = []
        self._long: list[Future[None]] = []
        self._digest = _digest_of(context)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._wait()

    def read(self, name: str) -> bytes | mmap.mmap | None:
        path = self._path(name)
        if not path.exists():
            return None
        if path.stat().st_size <= _MAPPED_BYTES:
            return path.read_bytes()
        with path.open("rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)

    def write(self, name: str, content: bytes | memoryview) -> None:
        path = self._path(name)
        if name == "masked":
            _move(self._spare, path)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
        _fill(descriptor, content)
        self._written.append(path)
        if memoryview(content).nbytes < _LONG_BYTES:
            self._short.append(partial(_sync, descriptor))
        else:
            self._long.append(_DISK.submit(_sync, descriptor))

    def erase(self, name: str) -> None:
        self._wait()
        try:
            descriptor = os.open(path := self._path(name), os.O_WRONLY)
        except FileNotFoundError:
            return
        # What was written may have been copied by the file system; that is the owner's disk. The
        # zeros reach the blocks only while somebody holds the file.
        _overwrite(descriptor)
        path.unlink()
        _DISK.submit(_sync, descriptor)

    def give_up(self) -> None:
        """Erase the shares held; forget the masked vector, which may be known to others anyway.

        The disk takes the run's next vector several times as fast in the place of this one. A file
        that may be mapped still, by an answer on its way, is removed instead.
        """
        self.erase("held")
        masked = self._path("masked")
        if masked.exists() and masked.stat().st_size > _MAPPED_BYTES:
            masked.unlink()
        else:
            _move(masked, self._spare)

    def _path(self, name: str) -> Path:
        return self._folder / f"{self._digest}.{name}"

    def _wait(self) -> None:
        if not self._written:
            return
        folder = partial(_sync_folder, self._folder)
        syncs: list[Callable[[], object]] = [
            *self._short,
            folder,
            *(each.result for each in self._long),
        ]
        written, self._written, self._short, self._long = self._written, [], [], []
        try:
            # All of them, whichever fails: each closes its file.
            with contextlib.ExitStack() as others:
                for sync in reversed(syncs):
                    others.callback(sync)
        except OSError:
            # What isn't surely there must not be taken for an answer when it is asked for again.
            for path in written:
                path.unlink(missing_ok=True)
            raise


class Attempts:
    """What became of this domain's attempts: in its ledger, and as files of what it answered.

    Args:
        folder: of the files (0700).
    """

    def __init__(self, ledger: Ledger, folder: Path) -> None:
        self._ledger, self._folder = ledger, folder
        self._revealed: dict[str, list[Context]] = {}

    def files(self, context: Context) -> AttemptFiles:
        """Where an attempt's answers are."""
        return AttemptFiles(self._folder, context)

    def state_of(self, context: Context) -> str | None:
        """'reserved', 'charged' or 'void'; None: nothing was reserved."""
        return self._ledger.attempt(
            context.plan_hash, context.step, context.release, context.attempt
        )

    def reveals(self, context: Context) -> None:
        """An attempt is going to be charged: something is held of it until it is given up."""
        if context.plan_hash in self._revealed:
            self._revealed[context.plan_hash].append(context)

    def summed(self, context: Context) -> None:
        """Its sum was made, or needn't be: from now on nothing that ends it tells anything.

        So it may be given back if the node stops now. Not synced: where this is lost, or isn't this
        attempt's, the attempt counts as spent. One file for a run, so that it is written only.
        """
        descriptor = os.open(self._summed(context.plan_hash), os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            os.pwrite(descriptor, _digest_of(context).encode(), 0)
        finally:
            os.close(descriptor)

    def _was_summed(self, context: Context) -> bool:
        kept = self._summed(context.plan_hash)
        return kept.exists() and kept.read_bytes() == _digest_of(context).encode()

    def _summed(self, plan_hash: str) -> Path:
        return self._folder / f"{plan_hash}.summed"

    def give_up_charged(self, plan_hash: str) -> None:
        """Erase what is held of earlier attempts: peers' shares, and inputs that were opened.

        So the disk holds one vector of a run, however many releases it has. The ledger is asked for
        them once: it has all of the run's, which would take longer with each release.
        """
        held = self._revealed.get(plan_hash)
        if held is None:
            held = [
                Context(plan_hash, step, release, attempt)
                for step, release, attempt, state in self._ledger.attempts(plan_hash)
                if state == "charged"
            ]
        for context in held:
            self.files(context).give_up()
        self._revealed[plan_hash] = []

    def forget(self, plan_hash: str) -> None:
        """Erase all that is held of a run that has ended."""
        self.give_up_charged(plan_hash)
        del self._revealed[plan_hash]
        (self._folder / f"{plan_hash}.spare").unlink(missing_ok=True)
        self._summed(plan_hash).unlink(missing_ok=True)

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
        self._ledger.charge(
            context.plan_hash, context.step, context.release, context.attempt, NOTHING
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

    def end_what_a_crash_left(self) -> None:
        """End whatever is reserved, as its keys died with the process, and forget what has ended.

        It is given back where its sum was surely made. Else the process may have ended because of
        what the engine did, or was to charge it: that may have told something.
        """
        for spare in self._folder.glob("*.spare"):
            spare.unlink()
        for plan in self._ledger.plans():
            for step, release, attempt, state in self._ledger.attempts(plan.plan_hash):
                if state == "reserved":
                    context = Context(plan.plan_hash, step, release, attempt)
                    if self._was_summed(context):
                        self.void(context, "the node stopped before revealing")
                    else:
                        self.spend(context)
            if self._ledger.status(plan.plan_hash) != "approved":
                self.forget(plan.plan_hash)


def _digest_of(context: Context) -> str:
    # The ledger lets an attempt reveal one thing only, so its files need no tensor's name.
    return hashlib.sha256(replace(context, tensor="").bytes).hexdigest()


def _overwrite(descriptor: int) -> None:
    left = os.fstat(descriptor).st_size
    while left > 0:
        left -= os.write(descriptor, _ZEROS[:left])


def _move(path: Path, place: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.replace(path, place)


def write_durably(path: Path, content: bytes | memoryview | mmap.mmap) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    _fill(descriptor, content)
    _sync(descriptor)
    _sync_folder(path.parent)


def _fill(descriptor: int, content: bytes | memoryview | mmap.mmap) -> None:
    with os.fdopen(descriptor, "wb", closefd=False) as file:
        file.write(content)
        file.truncate()


def _sync(descriptor: int) -> None:
    """Content, and length where it changed, to the disk; closes the file."""
    try:
        os.fdatasync(descriptor)
    finally:
        os.close(descriptor)


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


_DISK = ThreadPoolExecutor(4, thread_name_prefix="disk")
