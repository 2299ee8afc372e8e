"""What can't become a graph: found where the author wrote it, with what to write instead.

Only the graph ever touches private data, so whatever a graph can't have is refused while tracing:
`Author` watches the calls of the author's own code, `Operators` what they come down to.
"""

import linecache
import sys
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

import torch
from torch import Tensor
from torch._C import DisableTorchFunction
from torch._ops import OpOverload
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_map_only

from policies.expansion import DECOMPOSED, DROPPED, RENAMED, TRANSPARENT, WRITTEN_OUT
from policies.graph import DTYPES
from policies.operations import ALLOWED

_ATEN = torch.ops.aten

_ADVICE = {
    "aten.nonzero": "its result's size depends on the data; write torch.where(condition, a, b)",
    "aten.masked_select": "its result's size depends on the data; multiply by the mask instead",
    "aten._unique": "its result's size depends on the data; count with scatter_add into zeros",
    "aten.unique": "its result's size depends on the data; count with scatter_add into zeros",
    "aten.bincount": "its result's size depends on the data; use zeros(N).scatter_add(0, items, 1)",
    "aten.index_put": "write zeros(...).scatter_add(0, index, values) or torch.where",
    "aten.sort": "rank by comparing: (scores > score).sum(); a sequence needn't be packed: "
    "multiply by the mask",
    "aten.argsort": "rank by comparing: (scores > score).sum()",
    "aten.topk": "rank by comparing: (scores > score).sum()",
    "aten.argmax": "compare with amax: (scores == scores.amax())",
    "aten.max.dim": "write x.amax(dim) for the values; compare with it for the positions",
    "aten.min.dim": "write x.amin(dim) for the values; compare with it for the positions",
    "aten.aminmax": "write x.amin() and x.amax()",
    "aten._embedding_bag_forward_only": "write F.embedding(items, table), times the mask, .sum(0)",
    "aten._embedding_bag": "write F.embedding(items, table), times the mask, .sum(0)",
    "aten.convolution": "add up shifted products, one for each position of the kernel: "
    "sum(x[k : k + length] @ weight[k] for k in range(width))",
    "aten.unfold": "stack slices: torch.stack([x[i : i + size] for i in range(count)])",
    "aten.avg_pool2d": "reshape to the windows and take .mean(-1)",
    "aten.max_pool2d_with_indices": "reshape to the windows and take .amax(-1)",
    "aten._adaptive_avg_pool2d": "reshape to the windows and take .mean(-1)",
    "aten._trilinear": "write torch.einsum",
    "aten.cumprod": "write x.log().cumsum(0).exp() of positive numbers",
    "aten.linalg_lstsq": "solve the normal equations: torch.linalg.solve(x.T @ x, x.T @ y)",
    "aten._linalg_svd": "its steps depend on the data; use linalg.solve, inv or cholesky",
    "aten._linalg_eigh": "its steps depend on the data; use linalg.solve, inv or cholesky",
    "aten.native_group_norm": "use LayerNorm",
    "aten.nan_to_num": "write torch.where(torch.isfinite(x), x, 0)",
    "aten.upsample_linear1d": "multiply by the matrix of weights, as state",
    "aten.reflection_pad1d": "write torch.cat([x[1:k].flip(0), x])",
    "aten.heaviside": "write (x > 0).float()",
    "aten.hypot": "write (x * x + y * y).sqrt()",
    "aten.roll": "write torch.cat([x[-k:], x[:-k]])",
    "aten.empty": "it would read memory it didn't write; use zeros",
    "aten.as_strided": "use reshape, permute or slicing",
    "aten.native_batch_norm": "it mixes users; use LayerNorm",
    "aten._native_batch_norm_legit": "it mixes users; use LayerNorm",
    "aten.cummax": "compare: (x[:, None] >= x).all() and the like, or x.amax() of each slice",
    "aten.median": "ranks by comparing: (x[:, None] > x).sum(1)",
    "aten.bucketize": "count the edges below: (values[:, None] > edges).sum(-1)",
    "aten.searchsorted": "count the edges below: (values[:, None] > edges).sum(-1)",
    "aten.__rshift__": "write x // 2**k",
    "aten.__lshift__": "write x * 2**k",
    "aten.bitwise_xor": "mix by sums and products: (a * 31 + b) % n",
    "aten.logcumsumexp": "write torch.logsumexp of masked scores: a triangle of -inf added",
    "aten._linalg_slogdet": "of a positive matrix: 2 * cholesky(x).diagonal().log().sum()",
    "aten.linalg_matrix_exp": "train the plain weight: parametrize.remove_parametrizations",
    "aten.vdot": "train the plain weight: parametrize.remove_parametrizations",
    "aten._fft_r2c": "multiply by the matrix of cosines and sines, as constants or state",
    "aten.view_as_complex": "graphs have real numbers: keep real and imaginary parts apart",
    "aten._ctc_loss": "write the loss with logsumexp over fixed positions",
    "aten._cdist_forward": "write (x[:, None] - y).square().sum(-1), and .clamp(1e-12).sqrt()",
    "aten._euclidean_dist": "write (x[:, None] - y).square().sum(-1), and .clamp(1e-12).sqrt()",
    "aten.embedding_renorm": "divide the rows by their norms: x / x.norm(dim=-1, keepdim=True)",
    "aten.copy_": "make a new tensor instead of writing into an input",
}

_DATA_DEPENDENT = (
    "the value of a tensor decides what happens next, and only private data could say which. "
    "Write torch.where(condition, a, b), or keep the value as a tensor"
)

_NEEDS_A_VALUE = {
    "__bool__": f"an `if`, `while`, `and` or `not` on a tensor: {_DATA_DEPENDENT}",
    "item": f".item() takes a number out of a tensor: {_DATA_DEPENDENT}",
    "tolist": f".tolist() takes numbers out of a tensor: {_DATA_DEPENDENT}",
    "numpy": f".numpy() leaves PyTorch: {_DATA_DEPENDENT}",
    "__array__": f"numpy takes numbers out of a tensor: {_DATA_DEPENDENT}",
    "__dlpack__": f"another library takes numbers out of a tensor: {_DATA_DEPENDENT}",
    "data_ptr": f"a tensor's memory is read past PyTorch: {_DATA_DEPENDENT}",
    "__float__": f"float() takes a number out of a tensor: {_DATA_DEPENDENT}",
    "__int__": f"int() takes a number out of a tensor: {_DATA_DEPENDENT}",
    "__index__": f"a tensor is used as a Python number: {_DATA_DEPENDENT}",
    "__len__": f"the length depends on the data: {_DATA_DEPENDENT}",
    "one_hot": "one_hot looks at values; write (torch.arange(N) == index[:, None]).float()",
}

_UNSUPPORTED = {
    "batch_norm": "BatchNorm mixes users, and its running statistics are hidden state; use "
    "LayerNorm, or fold a frozen BatchNorm into the layer before it",
    "gru": "a fused GRU doesn't become a graph; loop over the interactions with nn.GRUCell",
    "lstm": "a fused LSTM doesn't become a graph; loop over the interactions with nn.LSTMCell",
    "rnn_tanh": "a fused RNN doesn't become a graph; loop over the interactions with nn.RNNCell",
    "instance_norm": "InstanceNorm keeps running statistics; use LayerNorm over that axis",
    "multi_margin_loss": "write (scores - right[:, None] + 1).clamp(min=0).mean(1) - 1 / classes",
    "gaussian_nll_loss": "it looks at values; write 0.5 * (var.log() + (x - mean) ** 2 / var)",
    "rnn_relu": "a fused RNN doesn't become a graph; loop over the interactions with nn.RNNCell",
}

_HINTS = (
    (
        "setup_context",
        "Custom autograd functions and reentrant checkpoints don't become graphs: write plain "
        "operations with .detach(), or checkpoint(..., use_reentrant=False)",
    ),
    ("does not require grad", "Differentiate with torch.func.grad(function)(weights)"),
    ("register a hook", "A graph has no hooks: write what it does, with .detach() where needed"),
    ("dynamo-optimized", "Pass the module as it was before torch.compile"),
)

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

_RANDOM = (
    "it draws random numbers, which a graph doesn't have. Dropout: call model.eval() before "
    "tracing; other randomness: draw it in public and pass it as state"
)

_LIBRARIES = (str(Path(torch.__file__).parent), str(Path(__file__).parent))


class TraceError(ValueError):
    """The function can't become a graph: says which line, which operation, what to write."""


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
        if name in _NEEDS_A_VALUE and name != "__len__":
            raise TraceError(f"{_calling_line()}: {_NEEDS_A_VALUE[name]}.")
        if name in _UNSUPPORTED:
            raise TraceError(f"{_calling_line()}: {name}: {_UNSUPPORTED[name]}.")
        if "dropout" in name and (True in args[2:] or True in (kwargs or {}).values()):
            raise TraceError(f"{_calling_line()}: {name}: {_RANDOM}.")
        of_input = bool(args) and any(args[0] is value for value in self.inputs)
        if of_input and _writes(name):
            raise TraceError(
                f"{_calling_line()}: {name} writes into an input; state and user tensors are "
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
            raise TraceError(f"{_calling_line()}: {refusal(func, name)}.")
        dtype = (kwargs or {}).get("dtype")
        if dtype is not None and dtype not in DTYPES.values():
            raise TraceError(
                f"{_calling_line()}: {name} makes {dtype}; graphs have {', '.join(DTYPES)}: use "
                "one of these."
            )
        if name == "aten.index.Tensor" and any(_is_mask(index) for index in args[1]):
            raise TraceError(
                f"{_calling_line()}: x[condition] has a size that depends on the data. "
                "Multiply by the condition, or write torch.where(condition, x, 0)."
            )
        if name.startswith("aten.index_put") and not (len(args) > 3 and args[3]):
            raise TraceError(
                f"{_calling_line()}: {name}: x[index] = values depends on the order of equal "
                f"indices: {_ADVICE['aten.index_put']}."
            )
        return func(*args, **(kwargs or {}))


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
    expanded = packet in DECOMPOSED or packet in WRITTEN_OUT
    return known or name in ALLOWED or expanded


def refusal(func: Any, name: str) -> str:
    """What is wrong with an operator, and what to write instead."""
    if name == "aten._local_scalar_dense.default":
        return f"{name}: {_DATA_DEPENDENT}"
    if torch.Tag.nondeterministic_seeded in getattr(func, "tags", ()):
        return f"{name}: {_RANDOM}"
    packet = ".".join(name.split(".")[:2])
    advice = _ADVICE.get(packet) or _ADVICE.get(packet.rstrip("0123456789"))
    return f"{name} isn't on the allow-list: " + (
        advice or "write it with the operations listed in policies/operations.py"
    )


def _out_of_place(name: str) -> str:
    if name in _IN_PLACE:
        return "Write x = x + y instead of x += y"
    if name == "__setitem__":
        return "Write torch.where(condition, new, old), or clone() it first"
    return f"Write {name.rstrip('_')} (a new tensor), or clone() it first"


def _calling_line() -> str:
    """Where in the author's code the current call comes from."""
    frame: FrameType | None = sys._getframe()
    while frame is not None and not _is_authors(frame.f_code.co_filename):
        frame = frame.f_back
    return "Your function" if frame is None else _line(frame.f_code.co_filename, frame.f_lineno)


def hint(message: str) -> str:
    """What to write instead of what PyTorch refused by itself in these words."""
    return next((f" {advice}." for words, advice in _HINTS if words in message), "")


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
