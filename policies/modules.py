"""An ordinary `nn.Module` as the public state of a plan, and its functions as functions of state.

A module's parameters and floating-point buffers become state tensors under their own names; a
parameter that is used under two names (tied weights) is one tensor under its first name. Small
integer and boolean buffers (position ids, causal masks) become constants of the graph, where
admission can see their values.
"""

import inspect
import textwrap
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.parameter import is_lazy

from policies.graph import DTYPES
from policies.remedies import TraceError
from policies.untraceable import calling_line

CONSTANT_BUFFER = 4_096
"""Integer and boolean buffers of at most this many elements become constants."""


def state_of(module: nn.Module) -> dict[str, Tensor]:
    """The module's tensors that become public state, by name, detached; tied ones once.

    Raises:
        TraceError: a lazy layer's have no shape yet.
    """
    unknown = [name for name, tensor in module.named_parameters() if is_lazy(tensor)]
    if unknown:
        raise TraceError(
            f"{calling_line()}: {unknown[0]!r} has no shape before the first call of its lazy "
            "layer: write nn.Linear(inputs, outputs) and the like, or call the model once."
        )
    buffers = {name: tensor for name, tensor in module.named_buffers() if not _is_constant(tensor)}
    tensors = dict(module.named_parameters()) | buffers
    return {name: tensor.detach() for name, tensor in tensors.items()}


def trainable(module: nn.Module) -> tuple[str, ...]:
    """Names of the parameters that require a gradient; freeze others with requires_grad_(False)."""
    return tuple(name for name, tensor in module.named_parameters() if tensor.requires_grad)


def aliases(module: nn.Module) -> dict[str, str]:
    """Other names of tied parameters, each with the name under which the state holds it."""
    first = {id(tensor): name for name, tensor in module.named_parameters()}
    every = module.named_parameters(remove_duplicate=False)
    return {name: first[id(tensor)] for name, tensor in every if first[id(tensor)] != name}


def of_state(
    module: nn.Module, function: Callable[[Any, Any], Any]
) -> Callable[[Mapping[str, Tensor], Any], Any]:
    """`function(module, user)` as a function of (state, user); the module itself isn't changed."""
    bound = _Bound(module, function)
    names = list(state_of(module))

    def called(state: Mapping[str, Tensor], user: Any) -> Any:
        tensors = {f"module.{name}": state[name] for name in names}
        return functional_call(bound, tensors, (user,), tie_weights=True)

    return called


def source_of(function: Callable, module: nn.Module | None = None) -> str:
    """The Python source of a function and of the author's own classes in a module, for reading."""
    classes = dict.fromkeys(type(part) for part in (() if module is None else module.modules()))
    own = [kind for kind in classes if not kind.__module__.startswith("torch.")]
    return "\n\n".join(_source(part) for part in (function, *own))


class _Bound(nn.Module):
    """Calls a function with a module whose tensors `functional_call` has replaced."""

    def __init__(self, module: nn.Module, function: Callable[[Any, Any], Any]) -> None:
        super().__init__()
        self.module = module
        self._function = function
        # A new module starts in training mode; this one must not change its child's.
        self.training = module.training

    def forward(self, user: Any) -> Any:
        return self._function(self.module, user)


def _is_constant(buffer: Tensor) -> bool:
    whole = not buffer.is_floating_point() and buffer.dtype in DTYPES.values()
    return whole and buffer.numel() <= CONSTANT_BUFFER


def _source(part: Any) -> str:
    try:
        return textwrap.dedent(inspect.getsource(part))
    except (OSError, TypeError):
        return f"({getattr(part, '__name__', 'a part')}: source not available)"
