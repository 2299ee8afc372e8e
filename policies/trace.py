"""From a data scientist's function to a graph, on her own machine.

The function is run once on one mock user; every PyTorch operator it reaches is written down
(`make_fx` over the functionalised function) and brought into one canonical form: nodes n0, n1...
in order of execution, nothing unused, views as reshapes. Equal functions give equal graphs.
A node trusts none of this: `policies.admission` checks the graph again, whoever made it.
"""

import linecache
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.func import functionalize
from torch.fx import GraphModule
from torch.fx import Node as FxNode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from policies.graph import (
    DTYPES,
    NEGATIVES,
    USER_TENSORS,
    Constant,
    Graph,
    Node,
    TensorSpec,
    reference,
)
from policies.operations import ALLOWED

_ATEN = torch.ops.aten

# Operators that PyTorch expands into allowed ones while it traces.
_DECOMPOSED = (
    _ATEN.nll_loss_forward,
    _ATEN.binary_cross_entropy_with_logits,
    _ATEN.binary_cross_entropy,
    _ATEN.mse_loss,
    _ATEN.smooth_l1_loss,
    _ATEN.huber_loss,
    _ATEN.soft_margin_loss,
    _ATEN._safe_softmax,
    # Gradients inside a contribution: local training steps.
    _ATEN._log_softmax_backward_data,
    _ATEN._softmax_backward_data,
    _ATEN.binary_cross_entropy_backward,
    _ATEN.elu_backward,
    _ATEN.gelu_backward,
    _ATEN.hardtanh_backward,
    _ATEN.huber_loss_backward,
    _ATEN.leaky_relu_backward,
    _ATEN.log_sigmoid_backward,
    _ATEN.logit_backward,
    _ATEN.mse_loss_backward,
    _ATEN.native_layer_norm_backward,
    _ATEN.nll_loss_backward,
    _ATEN.select_backward,
    _ATEN.sigmoid_backward,
    _ATEN.silu_backward,
    _ATEN.slice_backward,
    _ATEN.smooth_l1_loss_backward,
    _ATEN.softplus_backward,
    _ATEN.tanh_backward,
    _ATEN.threshold_backward,
)


def _embedding_gradient(
    gradient: Tensor, index: Tensor, rows: int, padding: int, scaled: bool
) -> Tensor:
    """PyTorch's own expansion indexes with a mask, which admission couldn't follow."""
    if scaled:
        raise TraceError("An embedding with scale_grad_by_freq can't be differentiated here.")
    width = gradient.shape[-1]
    each, index = gradient.reshape(-1, width), index.reshape(-1)
    if padding >= 0:
        each = torch.where((index != padding).unsqueeze(1), each, 0.0)
    return gradient.new_zeros((rows, width)).index_add(0, index, each)


_RENAMED = {
    "aten.unsafe_split.Tensor": "aten.split.Tensor",
    "aten.view.default": "aten.reshape.default",
    "aten._unsafe_view.default": "aten.reshape.default",
    "aten._reshape_alias.default": "aten.reshape.default",
    # PyTorch's own gradients fill it at once; a graph may never read what wasn't written.
    "aten.empty_like.default": "aten.zeros_like.default",
}
# These give their first argument back: names, not operations.
_TRANSPARENT = {
    "aten.lift_fresh.default",
    "aten.lift_fresh_copy.default",
    "aten.alias.default",
}
# They only raise errors, which depends on private values; the results stay non-finite instead.
_DROPPED = {"aten._linalg_check_errors.default"}
_IGNORED_KEYWORDS = {"device", "layout", "pin_memory", "memory_format", "non_blocking"}

_ADVICE = {
    "aten.nonzero": "its result's size depends on the data; write torch.where(condition, a, b)",
    "aten.masked_select": "its result's size depends on the data; multiply by the mask instead",
    "aten._unique": "its result's size depends on the data; count with scatter_add into zeros",
    "aten.unique": "its result's size depends on the data; count with scatter_add into zeros",
    "aten.bincount": "its result's size depends on the data; use zeros(N).scatter_add(0, items, 1)",
    "aten.index_put": "write zeros(...).scatter_add(0, index, values) or torch.where",
    "aten.sort": "rank by comparing: (scores > score).sum()",
    "aten.argsort": "rank by comparing: (scores > score).sum()",
    "aten.topk": "rank by comparing: (scores > score).sum()",
    "aten.argmax": "compare with amax: (scores == scores.amax())",
    "aten.empty": "it would read memory it didn't write; use zeros",
    "aten.as_strided": "use reshape, permute or slicing",
    "aten.native_batch_norm": "it mixes users; use LayerNorm",
    "aten._native_batch_norm_legit": "it mixes users; use LayerNorm",
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
    "rnn_relu": "a fused RNN doesn't become a graph; loop over the interactions with nn.RNNCell",
}
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


@dataclass(frozen=True)
class Bounds:
    """The declared sizes that fix all shapes.

    Attributes:
        items: N, number of items in the catalogue.
        interactions: M, the most interactions of one user.
        users: the most users of one domain; None while tracing, where it doesn't matter.
    """

    items: int
    interactions: int
    users: int | None = None

    def __post_init__(self) -> None:
        if self.items < 1 or self.interactions < 1 or (self.users is not None and self.users < 1):
            raise ValueError("Bounds need at least one item, one interaction and one user.")


@dataclass(frozen=True)
class User:
    """One user's tensors, as a function sees them.

    Attributes:
        items: int64 [M], item positions in 0..N-1, padded with 0.
        mask: float32 [M], 1 for an interaction, 0 for padding.
        values: float32 [M], the declared value of each interaction, padded with 0.
        target: int64 [], her held-out item in evaluation steps, 0 if she has none.
        has_target: float32 [], 1 if she has a held-out item.
        negatives: int64 [99], items she never interacted with.
        memory: float32 [d], her private memory; in `scores` functions only.
    """

    items: Tensor
    mask: Tensor
    values: Tensor
    target: Tensor
    has_target: Tensor
    negatives: Tensor
    memory: Tensor | None = None


def user_specs(bounds: Bounds, memory: int | None = None) -> dict[str, TensorSpec]:
    """Specs of the user tensors by name, in their fixed order; `memory` is its length d."""
    m = bounds.interactions
    specs = [
        TensorSpec(name="items", shape=(m,), dtype="int64"),
        TensorSpec(name="mask", shape=(m,), dtype="float32"),
        TensorSpec(name="values", shape=(m,), dtype="float32"),
        TensorSpec(name="target", shape=(), dtype="int64"),
        TensorSpec(name="has_target", shape=(), dtype="float32"),
        TensorSpec(name="negatives", shape=(NEGATIVES,), dtype="int64"),
    ]
    if memory is not None:
        specs.append(TensorSpec(name="memory", shape=(memory,), dtype="float32"))
    return {spec.name: spec for spec in specs}


def mock_user(bounds: Bounds, memory: int | None = None) -> User:
    """One made-up user within the bounds; always the same."""
    items = torch.arange(bounds.interactions) % bounds.items
    mask = (torch.arange(bounds.interactions) * 2 <= bounds.interactions).float()
    return User(
        items=items * mask.long(),
        mask=mask,
        values=mask.clone(),
        target=torch.tensor(bounds.items - 1),
        has_target=torch.tensor(1.0),
        negatives=torch.arange(NEGATIVES) % bounds.items,
        memory=None if memory is None else torch.full((memory,), 0.1),
    )


def trace(
    function: Callable[[dict[str, Tensor], User], Tensor | Mapping[str, Tensor]],
    state: Mapping[str, Tensor],
    bounds: Bounds,
) -> Graph:
    """The graph of `function(state, user)`.

    A single returned tensor becomes the output "loss". Outputs are converted to float32. The
    graph's inputs are the state tensors it uses, in the order given, and the user tensors it uses.

    Args:
        function: plain PyTorch over one user; returns a scalar loss or a dict of tensors.
        state: the public tensors; only their names, shapes and dtypes enter the graph. A tensor
            named "memory" [d] stands for the user's memory; the function also finds it in `user`.
        bounds: the data set's declared sizes.

    Raises:
        TraceError: names the line of the function, the operation and what to write instead.
    """
    public = {name: tensor.detach() for name, tensor in state.items() if name != "memory"}
    reserved = sorted(set(public) & set(USER_TENSORS))
    if reserved:
        raise TraceError(f"A state tensor can't be named {reserved[0]!r}: users have one of it.")
    _refuse_tied(public)
    memory = state["memory"].numel() if "memory" in state else None
    user = mock_user(bounds, memory)
    specs = user_specs(bounds, memory)
    tensors = [*public.values(), *(getattr(user, name) for name in specs)]
    inputs = [*(_state_spec(name, t) for name, t in public.items()), *specs.values()]
    captured, names, constants = _capture(function, tensors, list(public), list(specs))
    return _Writer(captured, inputs, names, constants).graph()


def _refuse_tied(state: Mapping[str, Tensor]) -> None:
    """One tensor under two names would become two, and each would get half of the gradient."""
    first: dict[tuple[Any, ...], str] = {}
    for name, tensor in state.items():
        key = (tensor.data_ptr(), tuple(tensor.shape), tensor.stride())
        if tensor.numel() and first.setdefault(key, name) != name:
            raise TraceError(
                f"The state tensors {first[key]!r} and {name!r} are one tensor (tied weights), "
                f"which a plan would train as two: keep {first[key]!r} alone and use it in both "
                "places, or clone() one of them. A model passed as ct.Plan(model=...) is tied "
                "correctly."
            )


def _state_spec(name: str, tensor: Tensor) -> TensorSpec:
    try:
        return TensorSpec.of(name, tensor)
    except ValueError as error:
        raise TraceError(f"The state tensor {name!r} can't be used: {error}") from None


def _capture(
    function: Callable[..., Any], tensors: list[Tensor], state: list[str], user: list[str]
) -> tuple[GraphModule, list[str], list[Tensor]]:
    """The FX graph, the names of its outputs, and the constants that are its last inputs."""
    names: list[str] = []
    author = _Author()

    def flat(*values: Tensor) -> list[Tensor]:
        author.inputs = list(values)
        given = dict(zip(user, values[len(state) :], strict=True))
        with _Operators(author), author:
            known = dict(zip(state, values, strict=False))
            if "memory" in given:
                known["memory"] = given["memory"]
            result = function(known, User(**given))
            outputs = _outputs(result)
        names[:] = outputs
        return list(outputs.values())

    try:
        with sdpa_kernel(SDPBackend.MATH):
            captured = _functional(flat, tensors)
            constants = _lift_constants(captured)
            if any(_mutates(node.target) for node in captured.graph.nodes):
                # PyTorch's own composite operators (gru_cell, attention) write in place inside.
                captured = _functional(captured, [*tensors, *constants])
    except TraceError:
        raise
    except Exception as error:
        raise TraceError(f"{_author_line(error)}: {type(error).__name__}: {error}") from error
    return captured, names, constants


def _lift_constants(captured: GraphModule) -> list[Tensor]:
    """Turn the tensors a graph holds into further inputs of it; returns them in order."""
    graph = captured.graph
    last = [node for node in graph.nodes if node.op == "placeholder"][-1]
    lifted: dict[str, FxNode] = {}
    for node in [node for node in graph.nodes if node.op == "get_attr"]:
        name = str(node.target)
        if name not in lifted:
            with graph.inserting_after(last):
                last = lifted[name] = graph.placeholder(f"constant{len(lifted)}")
            last.meta.update(node.meta)
        node.replace_all_uses_with(lifted[name])
        graph.erase_node(node)
    captured.recompile()
    return [getattr(captured, name).detach() for name in lifted]


def _functional(function: Callable[..., Any], tensors: list[Tensor]) -> GraphModule:
    decompositions = dict(torch._decomp.get_decompositions(_DECOMPOSED))
    decompositions[_ATEN.embedding_dense_backward.default] = _embedding_gradient
    capture = make_fx(
        functionalize(function, remove="mutations"), decomposition_table=decompositions
    )
    return capture(*tensors)


def _mutates(target: Any) -> bool:
    return isinstance(target, OpOverload) and target._schema.is_mutable


def _outputs(result: Any) -> dict[str, Tensor]:
    if isinstance(result, Tensor):
        result = {"loss": result}
    if not isinstance(result, Mapping) or not result:
        raise TraceError(
            f"The function returned {type(result).__name__}; expected a scalar loss or a dict of "
            "tensors."
        )
    wrong = [name for name, value in result.items() if not isinstance(value, Tensor)]
    if wrong:
        raise TraceError(f"The output {wrong[0]!r} isn't a tensor; return torch.stack or a tensor.")
    return {
        str(name): value if value.dtype == torch.float32 else value.to(torch.float32)
        for name, value in result.items()
    }


class _Author(TorchFunctionMode):
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
        result = func(*args, **(kwargs or {}))
        if of_input and name in _VIEWS:
            views = result if isinstance(result, list | tuple) else [result]
            self.inputs += [view for view in views if isinstance(view, Tensor)]
        return result


def _writes(name: str) -> bool:
    in_place = name.endswith("_") and not name.endswith("__")
    return name == "__setitem__" or in_place or name in _IN_PLACE


class _Operators(TorchDispatchMode):
    """Refuses an operator where the author called it, so that the error can say which line."""

    def __init__(self, author: _Author) -> None:
        super().__init__()
        self.author = author

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        name = str(func)
        if not _traceable(func):
            raise TraceError(f"{_calling_line()}: {_refusal(func, name)}.")
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
    known = name in _RENAMED or name in _TRANSPARENT or name in _DROPPED
    if _mutates(func) and torch.Tag.nondeterministic_seeded not in func.tags:
        return True  # functionalised afterwards
    packet = getattr(func, "overloadpacket", None)
    expanded = packet in _DECOMPOSED or packet == _ATEN.embedding_dense_backward
    return known or name in ALLOWED or expanded


def _refusal(func: Any, name: str) -> str:
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


def _author_line(error: BaseException) -> str:
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


class _Writer:
    """Writes a captured FX graph in canonical form."""

    def __init__(
        self,
        captured: GraphModule,
        inputs: list[TensorSpec],
        names: list[str],
        constants: list[Tensor],
    ) -> None:
        self._captured = captured
        self._inputs = inputs
        self._names = names
        self._values = constants
        self._constants: list[Constant] = []
        self._nodes: list[Node] = []
        self._written: dict[FxNode, str] = {}

    def graph(self) -> Graph:
        nodes = list(self._captured.graph.nodes)
        placeholders = [node for node in nodes if node.op == "placeholder"]
        used = self._used(nodes)
        given = list(zip(self._inputs, placeholders, strict=False))
        inputs = [spec for spec, node in given if node in used]
        for spec, node in given:
            self._written[node] = spec.name
        for value, node in zip(self._values, placeholders[len(given) :], strict=True):
            if node in used:
                self._written[node] = self._constant(value)
        for node in nodes:
            if node in used and node.op == "call_function":
                self._write(node)
        [returned] = nodes[-1].args
        outputs = tuple(
            (name, self._written[node]) for name, node in zip(self._names, returned, strict=True)
        )
        try:
            return Graph(
                inputs=tuple(inputs),
                constants=tuple(self._constants),
                nodes=tuple(self._nodes),
                outputs=outputs,
            )
        except ValueError as error:
            raise TraceError(f"The function can't be written as a graph: {error}") from None

    def _used(self, nodes: list[FxNode]) -> set[FxNode]:
        for node in nodes:
            if str(node.target).startswith("aten.copy_."):
                raise TraceError(
                    "Your function writes into one of its inputs, or into a tensor from outside of "
                    "it; both are read-only. clone() it first."
                )
        used = {nodes[-1]}
        for node in reversed(nodes):
            if node in used:
                used.update(node.all_input_nodes)
        return used

    def _write(self, node: FxNode) -> None:
        name = str(node.target)
        if name in _TRANSPARENT:
            self._written[node] = self._written[node.all_input_nodes[0]]
        else:
            self._written[node] = self._operation(node, name)

    def _operation(self, node: FxNode, name: str) -> str:
        op = _RENAMED.get(name, name)
        if getattr(node.target, "__name__", "") == "getitem":
            op = "getitem"
        if op not in ALLOWED:
            raise TraceError(f"{_refusal(node.target, name)}.")
        args = list(node.args)
        if op == "aten.slice.Tensor":
            args = _bounded_slice(node)
        keywords = {k: v for k, v in node.kwargs.items() if k not in _IGNORED_KEYWORDS}
        written = f"n{len(self._nodes)}"
        self._nodes.append(
            Node(
                name=written,
                op=op,
                args=tuple(self._argument(value) for value in args),
                kwargs={key: self._argument(value) for key, value in sorted(keywords.items())},
            )
        )
        return written

    def _constant(self, tensor: Tensor) -> str:
        name = f"c{len(self._constants)}"
        spec = TensorSpec.of(name, tensor)
        self._constants.append(Constant(spec=spec, data=tuple(tensor.flatten().tolist())))
        return name

    def _argument(self, value: Any) -> Any:
        if isinstance(value, FxNode):
            return reference(self._written[value])
        if isinstance(value, list | tuple):
            return [self._argument(item) for item in value]
        if isinstance(value, torch.dtype):
            return {"dtype": str(value).removeprefix("torch.")}
        return value


def _bounded_slice(node: FxNode) -> list[Any]:
    """`x[1:]` ends at 2^63 - 1; the size of the dimension says the same and JSON can write it."""
    source: Any = node.args[0]
    dimension: Any = node.args[1] if len(node.args) > 1 else 0
    size = source.meta["val"].shape[dimension]
    given: list[Any] = list(node.args[2:])
    defaults: list[Any] = [None, None, 1]
    start, end, step = given + defaults[len(given) :]
    ends = [value if value is None else min(int(value), size) for value in (start, end)]
    return [source, dimension, *ends, step]
