"""The engine's enclosure: a process of its own for every run, with nothing but one data set.

The parent (the node) keeps keys, ledger and noise. The child maps the arrays, locks itself down
(`domains.confinement`) and only then reads the plan. It answers framed messages (`domains.frames`).
It writes no file: users' memory goes to the parent, which keeps it. A sum, as long as a model, it
leaves in memory that both have open (`domains.sums`). A public state it reads from the parent's own
file, which it has open for reading only.
"""

import ctypes
import hashlib
import mmap
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import numpy as np
from numpy.typing import NDArray

from domains.confinement import Protection, confine
from domains.deadline import Deadline, DeadlinePassed
from domains.frames import Arrays, read_frame, write_frame
from domains.interactions import Interactions, private_file
from domains.launcher import LauncherFailed, launch
from domains.sums import ExactSum, Sums
from policies.plan import Plan
from policies.users import Bounds

_MAX_LOG = 2**20
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3


class EnclosureFailed(RuntimeError):
    """The engine's process ended or refused; the text says so without a private value."""


class SumFailed(EnclosureFailed):
    """The engine was asked for a release and ended, or refused. That it did may say something of
    the data, so the attempt counts as spent."""


class EngineOverdue(SumFailed):
    """It was ended, since the release took longer than the plan's deadline."""


class Enclosure:
    """A running engine for one plan on one data set; close it, or use it in a `with` block.

    Args:
        states: the file in which states lie that it is given later; others pass through a pipe.

    Attributes:
        protections: what the child gave up, and what it couldn't.

    Raises:
        EnclosureFailed: the process did not start.
    """

    def __init__(
        self, store: Path, plan_json: str, bounds: Bounds, states: IO[bytes] | None = None
    ) -> None:
        log = store / "engine.log"
        kept = log.exists() and log.stat().st_size < _MAX_LOG
        self._log = log.open("ab" if kept else "wb")
        self._store = store
        plan = Plan.from_json(plan_json)
        plan_hash, self._deadline_s = plan.hash, plan.deadline_s
        self._rate = min(step.sampling_rate for step in plan.steps)
        self._sums, self._states = Sums(max(step.width for step in plan.steps)), states
        readable = [] if states is None else [_for_reading(states)]
        try:
            self._process = launch(store, self._log.fileno(), self._sums.fileno(), *readable)
        except LauncherFailed as error:
            self._log.close()
            self._sums.close()
            raise EnclosureFailed(str(error)) from None
        finally:
            for file in readable:
                os.close(file)
        opening = {"plan": plan_json, "plan_hash": plan_hash, "bounds": asdict(bounds)}
        try:
            opened = self._ask(opening, {})[0]
        except EnclosureFailed:
            self.close()
            raise
        # Said before the plan was read, so a plan can't have a word in it.
        self._memory_file = store / _memory_name(plan_hash, str(opened["people"]))
        self.protections = [Protection(**each) for each in opened["protections"]]

    @property
    def alive(self) -> bool:
        """Whether the process still runs; a dead one answers nothing more."""
        return self._process.alive

    def private_sum(self, step: str, state: Arrays, selected: NDArray[np.bool_]) -> ExactSum:
        """The clipped integer sum of a step over the selected users, int64 [P], without noise.

        Raises:
            EngineOverdue: it takes longer than the plan's `deadline_s`; the process is killed.
            SumFailed: it ended otherwise.
        """
        arrays = {f"state/{name}": array for name, array in state.items()}
        header = {"do": "sum", "step": step}
        overdue = (
            f"a release may take {self._deadline_s} s (the plan's deadline_s); nothing of it left "
            "the node, but it is charged. Start the next attempt, or ask for a plan with a longer "
            "deadline."
        )
        arrays["selected"] = selected
        asked = self._sums.next()
        try:
            found = self._ask_within(self._deadline_s, overdue, header, arrays)
        except SumFailed:
            raise
        except EnclosureFailed as error:
            raise SumFailed(f"{error} The attempt is charged.") from None
        if "memories" in found:
            self._keep(found["memories"])
        return asked

    def memory(self, state: Arrays) -> None:
        """Compute every user's memory and keep it in the node's store.

        Raises:
            EngineOverdue: it takes longer than a release in which everybody takes part may.
            EnclosureFailed: it ended otherwise.
        """
        arrays = {f"state/{name}": array for name, array in state.items()}
        seconds = self._deadline_s / self._rate
        overdue = (
            f"users' memories may take {seconds:g} s (by the plan's deadline_s). End it again."
        )
        found = self._ask_within(seconds, overdue, {"do": "memory"}, arrays)
        self._keep(found["memories"])

    def _keep(self, memories: NDArray) -> None:
        staged = self._memory_file.with_suffix(".new")
        with private_file(staged) as file:
            np.save(file, memories, allow_pickle=False)
        os.replace(staged, self._memory_file)

    def recommend(self, state: Arrays, user: str, count: int) -> list[tuple[int, float]]:
        """Catalogue positions and scores of the best items this user hasn't seen.

        Raises:
            EnclosureFailed: she is no user of this data set.
        """
        arrays = {f"state/{name}": array for name, array in state.items()}
        header, _ = self._ask({"do": "recommend", "user": user, "count": count}, arrays)
        return [(int(item), float(score)) for item, score in header["items"]]

    def close(self) -> None:
        """End the process."""
        self._process.end()
        self._log.close()
        self._sums.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.close()

    def _ask_within(
        self,
        seconds: float,
        overdue: str,
        header: Mapping[str, Any],
        arrays: Arrays,
    ) -> dict[str, NDArray]:
        try:
            with Deadline(seconds, self._process.kill):
                return self._ask(header, arrays)[1]
        except DeadlinePassed:
            raise EngineOverdue(f"the engine was ended, since {overdue}") from None

    def _ask(
        self, header: Mapping[str, Any], arrays: Arrays
    ) -> tuple[dict[str, Any], dict[str, NDArray]]:
        try:
            write_frame(self._process.questions, header, arrays, self._states)
            answer, found = read_frame(self._process.answers)
        except (OSError, EOFError, ValueError):
            raise EnclosureFailed(
                "the engine's process ended in the middle of its work; nothing of it left the "
                "node. Start the next attempt."
            ) from None
        if "error" in answer:
            raise EnclosureFailed(str(answer["error"]))
        return answer, found


def _for_reading(file: IO[bytes]) -> int:
    return os.open(f"/proc/self/fd/{file.fileno()}", os.O_RDONLY)


def keep_freed_memory() -> None:
    """Let the C library reuse large blocks instead of returning each to the system at once.

    A batch's tensors are of the same few sizes every time; mapping and zeroing their pages again
    took a third of a round. Elsewhere than with glibc nothing changes.
    """
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)
    if set_option is not None:
        set_option(_TRIM_THRESHOLD, 2**30)
        set_option(_MMAP_THRESHOLD, 2**25)


def _people(names: tuple[str, ...]) -> str:
    return hashlib.sha256("\n".join(names).encode()).hexdigest()


def _memory_name(plan_hash: str, people: str) -> str:
    # Rows are users by position, so another list of users has another file.
    return f"memory-{plan_hash[:32]}-{people[:32]}.npy"


class _Child:
    """What runs inside: one plan, one data set, one question after the other.

    Made before the lock-down, while the arrays can still be opened; `read` comes after it.

    Args:
        sums: where its sums go.
    """

    def __init__(self, store: Path, plan_hash: str, sums: mmap.mmap) -> None:
        self._sums = sums
        self._data = Interactions.load(store)
        self.people = _people(self._data.names)
        kept = store / _memory_name(plan_hash, self.people)
        self._memories: NDArray | None = None
        if kept.exists():
            self._memories = np.load(kept, mmap_mode="r", allow_pickle=False)

    def read(self, opening: Mapping[str, Any]) -> None:
        """Take the plan."""
        from domains.users import UserTensors

        self._plan = Plan.from_json(opening["plan"])
        seed = int(self._plan.hash[:16], 16)
        bounds = Bounds(**opening["bounds"])
        self._tensors = UserTensors(
            self._data, bounds.items, bounds.interactions, seed, bounds.users
        )
        self._tensors.memories = self._memories

    def answer(
        self, header: Mapping[str, Any], arrays: Mapping[str, NDArray]
    ) -> tuple[dict[str, Any], dict[str, NDArray]]:
        import torch

        state = {
            name.removeprefix("state/"): torch.from_numpy(array)
            for name, array in arrays.items()
            if name.startswith("state/")
        }
        if header["do"] == "sum":
            return {}, self._sum(header["step"], state, np.flatnonzero(arrays["selected"]))
        if header["do"] == "memory":
            self._memories = self._memory_of(state, np.arange(self._data.users))
            return {}, {"memories": self._memories}
        return {"items": self._recommend(state, header["user"], header["count"])}, {}

    def _sum(self, name: str, state: Any, selected: NDArray[np.int64]) -> dict[str, NDArray]:
        from domains.engine import private_sum

        step, memory, found = self._plan.step(name), self._plan.memory, {}
        if "memory" in step.graph.user and memory is not None:
            self._tensors.remember(selected, self._memory_of(state, selected))
            if "memory" in memory.user and self._tensors.memories is not None:
                # The next release starts from these, also if this process doesn't live to see it.
                found["memories"] = self._tensors.memories
        private_sum(step, state, self._tensors, selected, self._sums)
        return found

    def _memory_of(self, state: Any, users: NDArray[np.int64]) -> NDArray:
        from domains.engine import user_memories

        assert self._plan.memory is not None
        return user_memories(self._plan.memory, state, self._tensors, users)

    def _recommend(self, state: Any, user: str, count: int) -> list[tuple[int, float]]:
        import torch

        if user not in self._data.names:
            raise _Refused(f"'{user[:64]}' is no user of this data set.")
        index = self._data.names.index(user)
        row = (
            self._memories[index]
            if self._memories is not None
            else self._memory_of(state, np.array([index]))[0]
        )
        hers = torch.from_numpy(np.array(row))
        assert self._plan.scores is not None
        scores = self._plan.scores.run({**state, "memory": hers})["scores"]
        begin, end = self._data.indptr[index], self._data.indptr[index + 1]
        scores[torch.from_numpy(np.array(self._data.items[begin:end]))] = -torch.inf
        best = torch.topk(scores, min(max(count, 1), len(scores)))
        return list(zip(best.indices.tolist(), best.values.tolist(), strict=True))


def _load_lazy_parts() -> None:
    """Let torch import what it imports at the first gradient."""
    import torch

    from domains.flattening import mapped
    from policies.graph import Graph, Node, TensorSpec

    spec = TensorSpec(name="mask", shape=(), dtype="float32")
    square = Node(name="n0", op="aten.mul.Tensor", args=({"ref": "mask"}, {"ref": "mask"}))
    graph = Graph(inputs=(spec,), nodes=(square,), outputs=(("loss", "n0"),))
    mapped(graph, ["mask"], ["mask"])({"mask": torch.ones(2)})


class _Refused(Exception):
    """A public reason, safe to answer."""


def load() -> None:
    """Load all that an engine needs: locked down, it may be unable to read its own program."""
    import torch

    import domains.engine  # noqa: F401
    from domains.examination import prepare

    torch.set_num_threads(1)
    keep_freed_memory()
    _load_lazy_parts()
    prepare()


def serve(store: Path, sums: int, states: int | None = None) -> None:
    """Lock this process down and serve frames on standard input and output until they close.

    Args:
        sums: open file of `domains.sums`. states: see `Enclosure`.
    """
    from policies.graph import GraphFailed

    output, source = os.fdopen(os.dup(1), "wb"), os.fdopen(os.dup(0), "rb")
    os.dup2(2, 1)
    try:
        opening, _ = read_frame(source)
    except EOFError:
        return
    child = _Child(store, str(opening["plan_hash"]), mmap.mmap(sums, 0))
    os.close(sums)
    protections = [asdict(each) for each in confine()]
    child.read(opening)
    write_frame(output, {"people": child.people, "protections": protections}, {})
    while True:
        try:
            header, arrays = read_frame(source, states)
        except EOFError:
            return
        try:
            answer, found = child.answer(header, arrays)
        except (GraphFailed, _Refused) as error:
            answer, found = {"error": str(error)}, {}
        except Exception as error:
            # An exception's text may quote private values; its type can't.
            answer, found = {"error": f"the engine failed ({type(error).__name__})"}, {}
        write_frame(output, answer, found)
