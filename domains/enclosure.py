"""The engine's enclosure: a process of its own for every run, with nothing but one data set.

The parent (the node) keeps keys, ledger and noise. The child maps the arrays and answers framed
messages: an 8-byte length, a JSON header with the arrays' names, dtypes and shapes, and their raw
bytes. Nothing is pickled. What this platform can't lock down is reported, never skipped silently.
"""

import ctypes
import hashlib
import json
import os
import resource
import struct
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import numpy as np
from numpy.typing import NDArray

from policies.plan import Plan

MAX_FRAME = 2**31
MEMORY_LIMIT = 8 * 2**30
CPU_LIMIT_S = 24 * 3600
_CLONE_NEWNET = 0x40000000
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_ALLOWED_DTYPES = ("float32", "float64", "int64", "bool", "uint8")


class EnclosureFailed(RuntimeError):
    """The engine's process ended or refused; the text says so without a private value."""


class Enclosure:
    """A running engine for one plan on one data set; close it, or use it in a `with` block.

    Attributes:
        protections: what the child could lock: 'network', 'memory', 'cpu', 'processes'.

    Raises:
        EnclosureFailed: the process did not start.
    """

    def __init__(self, store: Path, plan_json: str, items: int, width: int) -> None:
        self._log = (store / "engine.log").open("ab")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "domains.enclosure", str(store)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env=_clean_environment(),
            close_fds=True,
        )
        opened = self._ask({"plan": plan_json, "items": items, "width": width}, {})[0]
        self.protections: dict[str, bool] = opened["protections"]

    def private_sum(
        self, step: str, state: Mapping[str, NDArray], selected: NDArray[np.bool_]
    ) -> NDArray[np.int64]:
        """The clipped integer sum of a step over the selected users, int64 [P], without noise."""
        arrays = {f"state/{name}": array for name, array in state.items()}
        _, found = self._ask({"do": "sum", "step": step}, {**arrays, "selected": selected})
        return found["total"]

    def memory(self, state: Mapping[str, NDArray]) -> None:
        """Compute every user's memory and keep it in the node's store."""
        self._ask({"do": "memory"}, {f"state/{n}": a for n, a in state.items()})

    def recommend(
        self, state: Mapping[str, NDArray], user: str, count: int
    ) -> list[tuple[int, float]]:
        """Catalogue positions and scores of the best items this user hasn't seen.

        Raises:
            EnclosureFailed: she is no user of this data set.
        """
        arrays = {f"state/{name}": array for name, array in state.items()}
        header, _ = self._ask({"do": "recommend", "user": user, "count": count}, arrays)
        return [(int(item), float(score)) for item, score in header["items"]]

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout, self._log):
            if pipe is not None:
                pipe.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.close()

    def _ask(
        self, header: Mapping[str, Any], arrays: Mapping[str, NDArray]
    ) -> tuple[dict[str, Any], dict[str, NDArray]]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            write_frame(self._process.stdin, header, arrays)
            answer, found = read_frame(self._process.stdout)
        except (OSError, EOFError, ValueError):
            raise EnclosureFailed(
                "the engine's process ended in the middle of its work; nothing of it left the "
                "node. Start the next attempt."
            ) from None
        if "error" in answer:
            raise EnclosureFailed(str(answer["error"]))
        return answer, found


def write_frame(pipe: IO[bytes], header: Mapping[str, Any], arrays: Mapping[str, NDArray]) -> None:
    """Write one message: length, JSON header, then the arrays' bytes in order."""
    contiguous = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    described = [
        {"name": n, "dtype": str(a.dtype), "shape": list(arrays[n].shape)}
        for n, a in contiguous.items()
    ]
    text = json.dumps({"header": dict(header), "arrays": described}).encode()
    pipe.write(struct.pack("<Q", len(text)) + text)
    for array in contiguous.values():
        pipe.write(array.tobytes())
    pipe.flush()


def read_frame(pipe: IO[bytes]) -> tuple[dict[str, Any], dict[str, NDArray]]:
    """Read what `write_frame` wrote.

    Raises:
        EOFError: the other side ended. ValueError: not such a frame.
    """
    (length,) = struct.unpack("<Q", _exactly(pipe, 8))
    if length > MAX_FRAME:
        raise ValueError("the frame is too long")
    message = json.loads(_exactly(pipe, length))
    arrays = {}
    for described in message["arrays"]:
        if described["dtype"] not in _ALLOWED_DTYPES:
            raise ValueError("the frame has an array of another dtype than allowed")
        dtype, shape = np.dtype(described["dtype"]), tuple(described["shape"])
        size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        if not 0 <= size <= MAX_FRAME:
            raise ValueError("the frame has an array that is too large")
        arrays[described["name"]] = np.frombuffer(_exactly(pipe, size), dtype).reshape(shape)
    return message["header"], arrays


def _exactly(pipe: IO[bytes], size: int) -> bytearray:
    content = bytearray()
    while len(content) < size:
        part = pipe.read(size - len(content))
        if not part:
            raise EOFError("the other side ended")
        content += part
    return content


def _clean_environment() -> dict[str, str]:
    kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
    return {**kept, "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}


def lock_down() -> dict[str, bool]:
    """Give up network, new processes and unbounded memory and CPU; says what was possible."""
    limits = {
        "memory": (resource.RLIMIT_AS, MEMORY_LIMIT),
        "cpu": (resource.RLIMIT_CPU, CPU_LIMIT_S),
        "core dumps": (resource.RLIMIT_CORE, 0),
    }
    done = {name: _limit(kind, bound) for name, (kind, bound) in limits.items()}
    unshare = getattr(ctypes.CDLL(None, use_errno=True), "unshare", None)
    done["network"] = unshare is not None and unshare(_CLONE_NEWNET) == 0
    return done


def keep_freed_memory() -> None:
    """Let the C library reuse large blocks instead of returning each to the system at once.

    A batch's tensors are of the same few sizes every time; mapping and zeroing their pages again
    took a third of a round. Elsewhere than with glibc nothing changes.
    """
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)
    if set_option is not None:
        set_option(_TRIM_THRESHOLD, 2**30)
        set_option(_MMAP_THRESHOLD, 2**25)


def _limit(kind: int, bound: int) -> bool:
    try:
        resource.setrlimit(kind, (bound, bound))
    except (OSError, ValueError):
        return False
    return True


class _Child:
    """What runs inside: one plan, one data set, one question after the other."""

    def __init__(self, store: Path, opening: Mapping[str, Any]) -> None:
        from domains.engine import UserTensors
        from domains.interactions import Interactions

        self._store = store
        self._plan = Plan.from_json(opening["plan"])
        self._data = Interactions.load(store)
        seed = int(self._plan.hash[:16], 16)
        self._people = UserTensors(self._data, opening["items"], opening["width"], seed)

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
            return {}, {"total": self._sum(header["step"], state, arrays["selected"])}
        if header["do"] == "memory":
            self._remember(state)
            return {}, {}
        return {"items": self._recommend(state, header["user"], header["count"])}, {}

    def _sum(self, step: str, state: Any, selected: NDArray) -> NDArray:
        from domains.engine import private_sum

        return private_sum(self._plan.step(step), state, self._people, np.flatnonzero(selected))

    def _remember(self, state: Any) -> None:
        from domains.engine import user_memories
        from domains.interactions import private_file

        assert self._plan.memory is not None
        everyone = np.arange(self._data.users)
        memories = user_memories(self._plan.memory, state, self._people, everyone)
        with private_file(self._memory_file) as file:
            np.save(file, memories, allow_pickle=False)

    def _recommend(self, state: Any, user: str, count: int) -> list[tuple[int, float]]:
        import torch

        if user not in self._data.names:
            raise _Refused(f"'{user[:64]}' is no user of this data set.")
        index = self._data.names.index(user)
        if not self._memory_file.exists():
            self._remember(state)
        memories = np.load(self._memory_file, mmap_mode="r", allow_pickle=False)
        hers = torch.from_numpy(np.array(memories[index]))
        assert self._plan.scores is not None
        scores = self._plan.scores.run({**state, "memory": hers})["scores"]
        begin, end = self._data.indptr[index], self._data.indptr[index + 1]
        scores[torch.from_numpy(np.array(self._data.items[begin:end]))] = -torch.inf
        best = torch.topk(scores, min(max(count, 1), len(scores)))
        return list(zip(best.indices.tolist(), best.values.tolist(), strict=True))

    @property
    def _memory_file(self) -> Path:
        # Rows are users by position, so another list of users has another file.
        people = hashlib.sha256("\n".join(self._data.names).encode()).hexdigest()
        return self._store / f"memory-{self._plan.hash[:32]}-{people[:32]}.npy"


class _Refused(Exception):
    """A public reason, safe to answer."""


def main() -> None:
    """Serve frames on standard input and output until the parent closes them."""
    from policies.graph import GraphFailed

    output, source = os.fdopen(os.dup(1), "wb"), os.fdopen(os.dup(0), "rb")
    os.dup2(2, 1)
    import torch

    torch.set_num_threads(1)
    keep_freed_memory()
    opening, _ = read_frame(source)
    protections = lock_down()
    child = _Child(Path(sys.argv[1]), opening)
    write_frame(output, {"protections": protections}, {})
    while True:
        try:
            header, arrays = read_frame(source)
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


if __name__ == "__main__":
    main()
