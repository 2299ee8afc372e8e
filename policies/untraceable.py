"""What can't become a graph: found where the author wrote it, with what to write instead.

Only the graph ever touches private data, so whatever a graph can't have is refused while tracing:
`Author` watches the calls of the author's own code, `Operators` what they come down to.
"""

import inspect
import linecache
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

import torch
from torch import Tensor
from torch._C import DisableTorchFunction
from torch._ops import OpOverload
from torch.fx.experimental.proxy_tensor import get_proxy_mode
from torch.nn import functional as fn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_map_only

from policies.expansion import DECOMPOSED, DROPPED, RENAMED, TRANSPARENT
from policies.graph import DTYPES
from policies.operations import ALLOWED
from policies.remedies import ADVICE, NEEDS_A_VALUE, RANDOM, UNSUPPORTED, TraceError, refusal
from policies.written_out import EXPANSIONS, bag, bilinear, one_hot

_ATEN = torch.ops.aten

_VIEWS = frozenset(
    [
        "__getitem__",
        "view",
        "reshape",
        "view_as",
        "reshape_as",
        "transpose",
        "permute",
        "movedim",
        "t",
        "squeeze",
        "unsqueeze",
        "expand",
        "expand_as",
        "narrow",
        "select",
        "flatten",
        "unflatten",
        "ravel",
        "diagonal",
        "unbind",
        "split",
        "chunk",
        "swapaxes",
        "detach",
        "__get__",
        "alias",
    ]
)

_PUBLIC = frozenset(["tril_indices", "triu_indices", "linspace", "logspace"])
"""Made of written numbers alone: constants of the graph."""

_DATA = Tensor.data.__get__

_IN_PLACE = frozenset(
    [
        "__iadd__",
        "__isub__",
        "__imul__",
        "__itruediv__",
        "__ifloordiv__",
        "__imod__",
        "__ipow__",
        "__iand__",
        "__ior__",
        "__ixor__",
    ]
)

_ROOMS = Path(__file__).parents[1]
_LIBRARIES = (
    str(Path(torch.__file__).parent),
    *(str(_ROOMS / room) for room in ("coterie", "network", "policies")),
)

LINE = "line of the author"
"""Where a captured node's `meta` says which line of the author's it comes from."""

_EMBEDDING = "aten.embedding.default"


def mutates(target: Any) -> bool:
    """Whether it is an operator that writes into its arguments."""
    return isinstance(target, OpOverload) and target._schema.is_mutable


class Author(TorchFunctionMode):
    """Watches the author's own calls: where she is, and what no graph can do."""

    def __init__(self) -> None:
        super().__init__()
        self.inputs: list[Tensor] = []

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        name = getattr(func, "__name__", "")
        written = _written_out(name, args, kwargs or {})
        if written is not None:
            return written
        if name in NEEDS_A_VALUE and name != "__len__":
            raise TraceError(f"{calling_line()}: {NEEDS_A_VALUE[name]}.")
        if name in UNSUPPORTED:
            raise TraceError(f"{calling_line()}: {name}: {UNSUPPORTED[name]}.")
        if "dropout" in name and (True in args[2:] or True in (kwargs or {}).values()):
            raise TraceError(f"{calling_line()}: {name}: {RANDOM}.")
        of_input = bool(args) and any(args[0] is value for value in self.inputs)
        if of_input and _writes(name):
            raise TraceError(
                f"{calling_line()}: {name} writes into an input; state and user tensors are "
                f"read-only. {_out_of_place(name)}."
            )
        if name == "__getitem__" and _is_scalar_index(args[1]):
            return _ATEN.index.Tensor(args[0], _index_list(args[1]))
        if name in _PUBLIC:
            return _ATEN.lift_fresh_copy(_made_in_public(func, args, kwargs or {}))
        result = func(*args, **(kwargs or {}))
        if func == _DATA or not torch.is_grad_enabled():
            # A graph has no such modes; what they keep from being differentiated is detached.
            result = tree_map_only(Tensor, lambda tensor: tensor.detach(), result)
        if of_input and name in _VIEWS:
            views = result if isinstance(result, list | tuple) else [result]
            self.inputs += [view for view in views if isinstance(view, Tensor)]
        return result


def _writes(name: str) -> bool:
    in_place = name.endswith("_") and not name.endswith("__")
    return name == "__setitem__" or in_place or name in _IN_PLACE


class Operators(TorchDispatchMode):
    """Refuses an operator where the author called it, so that the error can say which line."""

    def __init__(self, author: Author) -> None:
        super().__init__()
        self.author = author

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        name = str(func)
        if not _traceable(func):
            raise TraceError(f"{calling_line()}: {refusal(func, name)}.")
        dtype = (kwargs or {}).get("dtype")
        if dtype is not None and dtype not in DTYPES.values():
            raise TraceError(
                f"{calling_line()}: {name} makes {dtype}; graphs have {', '.join(DTYPES)}: use "
                "one of these."
            )
        if name == "aten.index.Tensor" and any(_is_mask(index) for index in args[1]):
            raise TraceError(
                f"{calling_line()}: x[condition] has a size that depends on the data. "
                "Multiply by the condition, or write torch.where(condition, x, 0)."
            )
        if name.startswith("aten.index_put") and not (len(args) > 3 and args[3]):
            raise TraceError(
                f"{calling_line()}: {name}: x[index] = values depends on the order of equal "
                f"indices: {ADVICE['aten.index_put']}."
            )
        if name == _EMBEDDING and any(args[3:]):
            raise TraceError(
                f"{calling_line()}: an embedding with sparse=True or scale_grad_by_freq=True: "
                "leave it out; the rows that a user reads stay sparse anyway."
            )
        with noted(calling_line()):
            return func(*args, **(kwargs or {}))


@contextmanager
def noted(line: str) -> Iterator[None]:
    """Whatever is written down meanwhile is noted to come from this line."""
    mode = get_proxy_mode()
    nodes = mode.tracer.graph.nodes if mode is not None else ()
    last = next(iter(reversed(nodes)), None)
    yield
    for node in reversed(nodes):
        if node is last:
            return
        node.meta.setdefault(LINE, line)


def _written_out(name: str, args: tuple[Any, ...], given: Mapping[str, Any]) -> Tensor | None:
    """What a layer gives that PyTorch would compute in one operation, or by looking at values."""
    if name == "one_hot":
        classes = args[1] if len(args) > 1 else given.get("num_classes", -1)
        return one_hot(args[0], classes) if type(classes) is int and classes > 0 else None
    if name == "bilinear":
        return bilinear(*args, **given)
    if name != "embedding_bag":
        return None
    named = inspect.signature(fn.embedding_bag).bind(*args, **given)
    named.apply_defaults()
    asked = named.arguments
    plain = asked["offsets"] is None and asked["max_norm"] is None and asked["input"].dim() == 2
    if asked["sparse"] or asked["scale_grad_by_freq"] or asked["mode"] == "max" or not plain:
        return None
    weights, padding = asked["per_sample_weights"], asked["padding_idx"]
    return bag(asked["input"], asked["weight"], asked["mode"], weights, padding)


def _made_in_public(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    with _disable_current_modes(), DisableTorchFunction():
        made: Tensor = func(*args, **kwargs)
        return made


def _is_scalar_index(index: Any) -> bool:
    """Whether PyTorch would take a number out of the index (`x[user.target]`)."""
    parts = index if isinstance(index, tuple) else (index,)
    scalars = [p for p in parts if isinstance(p, Tensor) and p.dim() == 0 and p.dtype != torch.bool]
    plain = all(isinstance(part, Tensor) or part == slice(None) for part in parts)
    return bool(scalars) and plain


def _is_mask(index: Any) -> bool:
    return isinstance(index, Tensor) and index.dtype == torch.bool


def _index_list(index: Any) -> list[Tensor | None]:
    parts = index if isinstance(index, tuple) else (index,)
    return [part if isinstance(part, Tensor) else None for part in parts]


def _traceable(func: Any) -> bool:
    name = str(func)
    known = name in RENAMED or name in TRANSPARENT or name in DROPPED
    if mutates(func) and torch.Tag.nondeterministic_seeded not in func.tags:
        return True  # functionalised afterwards
    packet = getattr(func, "overloadpacket", None)
    expanded = packet in DECOMPOSED or func in EXPANSIONS
    return known or name in ALLOWED or expanded


def _out_of_place(name: str) -> str:
    if name in _IN_PLACE:
        return "Write x = x + y instead of x += y"
    if name == "__setitem__":
        return "Write torch.where(condition, new, old), or clone() it first"
    return f"Write {name.rstrip('_')} (a new tensor), or clone() it first"


def calling_line() -> str:
    """Where in the author's code the current call comes from."""
    frame: FrameType | None = sys._getframe()
    while frame is not None and not _is_authors(frame.f_code.co_filename):
        frame = frame.f_back
    return "Your function" if frame is None else _line(frame.f_code.co_filename, frame.f_lineno)


def author_line(error: BaseException) -> str:
    """Where in the author's code an exception passed last."""
    where = "Your function"
    traceback: TracebackType | None = error.__traceback__
    while traceback is not None:
        file = traceback.tb_frame.f_code.co_filename
        if _is_authors(file):
            where = _line(file, traceback.tb_lineno)
        traceback = traceback.tb_next
    return where


def _is_authors(file: str) -> bool:
    return not file.startswith((*_LIBRARIES, "<frozen", "<string>", "<eval_with_key>"))


def _line(file: str, number: int) -> str:
    source = linecache.getline(file, number).strip()
    return f"{Path(file).name}, line {number}" + (f" (`{source}`)" if source else "")
