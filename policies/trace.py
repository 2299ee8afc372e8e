"""From a data scientist's function to a graph, on her own machine.

The function is run once on one mock user; every PyTorch operator it reaches is written down
(`make_fx` over the functionalised function) and brought into one canonical form: nodes n0, n1...
in order of execution, nothing unused, views as reshapes. Equal functions give equal graphs.
A node trusts none of this: `policies.admission` checks the graph again, whoever made it.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor
from torch.func import functionalize
from torch.fx import GraphModule, Interpreter
from torch.fx import Node as FxNode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn.attention import SDPBackend, sdpa_kernel

from policies.expansion import DECOMPOSED
from policies.graph import NAMES, USER_TENSORS, Graph, TensorSpec
from policies.inspection import PlanRefused, inspect
from policies.remedies import TraceError, hint
from policies.untraceable import (
    LINE,
    Author,
    Operators,
    author_line,
    calling_line,
    mutates,
    noted,
)
from policies.users import Bounds, User, mock_user, user_specs
from policies.writer import Writer
from policies.written_out import EXPANSIONS

__all__ = ["TraceError", "trace"]


def trace(
    function: Callable[[dict[str, Tensor], User], Tensor | Mapping[str, Tensor]],
    state: Mapping[str, Tensor],
    bounds: Bounds,
) -> Graph:
    """The graph of `function(state, user)`, as `traced` without the lines."""
    return traced(function, state, bounds)[0]


def traced(
    function: Callable[[dict[str, Tensor], User], Tensor | Mapping[str, Tensor]],
    state: Mapping[str, Tensor],
    bounds: Bounds,
) -> tuple[Graph, dict[str, str]]:
    """The graph of `function(state, user)`, and the author's line for each node of it.

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
    for name, tensor in public.items():
        _refuse_without_storage(name, tensor)
    _refuse_tied(public)
    memory = state["memory"].numel() if "memory" in state else None
    user = mock_user(bounds, memory)
    specs = user_specs(bounds, memory)
    tensors = [*public.values(), *(getattr(user, name) for name in specs)]
    inputs = [*(_state_spec(name, t) for name, t in public.items()), *specs.values()]
    captured, names, constants = _capture(function, tensors, list(public), list(specs))
    writer = Writer(captured, inputs, names, constants)
    return writer.graph(), writer.lines


def check_admissible(
    graph: Graph, lines: Mapping[str, str], bounds: Bounds, memory: int | None
) -> None:
    """What a node would refuse whatever its limits are is told its author, with the line.

    Raises:
        TraceError: an argument, a shape, an index or a divisor that no node admits; or nothing of a
            user.
    """
    if not graph.user:
        raise TraceError(
            f"{next(iter(lines.values()), 'Your function')}: nothing here hangs on a user, so "
            "there is nothing to ask of the partners: compute it in public, or read user.items."
        )
    try:
        inspect(graph, bounds, memory=memory)
    except PlanRefused as refused:
        if refused.rule in ("operation", "shape", "dtype", "index", "division"):
            where = lines.get(refused.node) or "Your function"
            raise TraceError(f"{where}: {refused}") from None


def check_loss(
    graph: Graph, lines: Mapping[str, str], state: Mapping[str, Tensor], trained: Sequence[str]
) -> None:
    """A loss is one number, and what is trained by it float32.

    Args:
        trained: names of the state tensors by which it is differentiated; none: it isn't a loss.

    Raises:
        TraceError: otherwise, with the author's line.
    """
    shape = list(graph.output_specs()[0].shape) if trained else []
    if shape:
        where = lines.get(graph.outputs[0][1], "Your function")
        raise TraceError(
            f"{where}: the loss has shape {shape}; expected one number for a user: its .sum() or "
            ".mean()."
        )
    for name in trained:
        if state[name].dtype != torch.float32:
            [first, *_] = [node.name for node in graph.nodes if name in node.references()]
            raise TraceError(
                f"{lines[first]}: {name!r} is {state[name].dtype}; what is trained must be "
                "float32, as all outputs: write model.float()."
            )


def _refuse_without_storage(name: str, tensor: Tensor) -> None:
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_meta:
        what = "meta" if tensor.is_meta else str(tensor.layout).removeprefix("torch.")
        raise TraceError(
            f"{calling_line()}: the state tensor {name!r} is {what}; graphs have dense tensors "
            f"with numbers: write {name}.to_dense() of a sparse one."
        )


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
    except ValidationError:
        raise TraceError(
            f"{calling_line()}: the state tensor {name!r} can't be used: a name has {NAMES}, and "
            "no axis is empty. Rename it."
        ) from None
    except ValueError as error:
        raise TraceError(
            f"{calling_line()}: the state tensor {name!r} can't be used: {error} "
            f"Write model.float(), or {name}.float()."
        ) from None


def _capture(
    function: Callable[..., Any], tensors: list[Tensor], state: list[str], user: list[str]
) -> tuple[GraphModule, list[str], list[Tensor]]:
    """The FX graph, the names of its outputs, and the constants that are its last inputs."""
    names: list[str] = []
    author = Author()

    def flat(*values: Tensor) -> list[Tensor]:
        author.inputs = list(values)
        given = dict(zip(user, values[len(state) :], strict=True))
        with Operators(author), author:
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
            if any(mutates(node.target) for node in captured.graph.nodes):
                # PyTorch's own composite operators (gru_cell, attention) write in place inside.
                captured = _functional(_Again(captured).run, [*tensors, *constants])
    except TraceError:
        raise
    except Exception as error:
        said = f"{author_line(error)}: {type(error).__name__}: {error}"
        raise TraceError(said + hint(str(error))) from error
    return captured, names, constants


class _Again(Interpreter):
    """Runs what was captured, to be captured again from the same lines."""

    def run_node(self, n: FxNode) -> Any:
        with noted(n.meta.get(LINE, "")):
            return super().run_node(n)


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
    decompositions = {**torch._decomp.get_decompositions(DECOMPOSED), **EXPANSIONS}
    capture = make_fx(
        functionalize(function, remove="mutations"), decomposition_table=decompositions
    )
    return capture(*tensors)


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
