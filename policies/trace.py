"""From a data scientist's function to a graph, on her own machine.

The function is run once on one mock user; every PyTorch operator it reaches is written down
(`make_fx` over the functionalised function) and brought into one canonical form: nodes n0, n1...
in order of execution, nothing unused, views as reshapes. Equal functions give equal graphs.
A node trusts none of this: `policies.admission` checks the graph again, whoever made it.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor
from torch.func import functionalize
from torch.fx import GraphModule
from torch.fx import Node as FxNode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn.attention import SDPBackend, sdpa_kernel

from policies.expansion import DECOMPOSED
from policies.graph import NAMES, USER_TENSORS, Graph, TensorSpec
from policies.untraceable import Author, Operators, TraceError, author_line, hint, mutates
from policies.users import Bounds, User, mock_user, user_specs
from policies.writer import Writer

__all__ = ["TraceError", "trace"]

_ATEN = torch.ops.aten


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


def _x_log_y(x: Tensor, y: Tensor) -> Tensor:
    """PyTorch's own expansion writes NaN, which graphs don't have, where y has it already."""
    return torch.where(x == 0, 0.0, x * torch.log(y))


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
    return Writer(captured, inputs, names, constants).graph()


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
            f"The state tensor {name!r} can't be used: a name has {NAMES}, and no axis is empty. "
            "Rename it."
        ) from None
    except ValueError as error:
        raise TraceError(f"The state tensor {name!r} can't be used: {error}") from None


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
                captured = _functional(captured, [*tensors, *constants])
    except TraceError:
        raise
    except Exception as error:
        said = f"{author_line(error)}: {type(error).__name__}: {error}"
        raise TraceError(said + hint(str(error))) from error
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
    decompositions = dict(torch._decomp.get_decompositions(DECOMPOSED))
    decompositions[_ATEN.embedding_dense_backward.default] = _embedding_gradient
    decompositions[_ATEN.xlogy.Tensor] = _x_log_y
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
