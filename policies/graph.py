"""A graph: the pure, reviewable form of a contribution, and the interpreter that runs it.

A graph is a list of PyTorch operators in the order in which they run, written as JSON values.
Nothing else of a data scientist's code ever touches private data. Reading a graph is parsing:
no pickle, no eval, no import. Arguments of a node are JSON values in which

    {"ref": "n3"}            stands for the tensor of that name (an input, constant or node),
    {"dtype": "float32"}     for a dtype,
    {"float": 1} / {"float": "inf"}   for a float whose value JSON would read as an integer, or
                             can't write at all; every other number stands for itself.
"""

import math
import re
from collections.abc import Callable
from functools import cached_property
from typing import Annotated, Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode, unset_fake_temporarily

from policies.operations import operation

DTYPES: dict[str, torch.dtype] = {
    "float32": torch.float32,
    "float64": torch.float64,
    "int64": torch.int64,
    "bool": torch.bool,
}
USER_TENSORS = ("items", "mask", "values", "target", "has_target", "negatives", "memory")
NEGATIVES = 99

_MAXIMUM_DEPTH = 4
_LARGEST = 1e300
_INTERNAL_NAME = re.compile(r"[nc][0-9]+")

NAMES = (
    "1 to 128 letters, digits, _ and ., beginning with a letter or _, or with numbered parts "
    "before a word ('0.weight')"
)
_WORD = r"[A-Za-z_][A-Za-z0-9_.]{0,127}"
# After numbers two letters at least: 1.e5 must stay a number.
Name = Annotated[
    str,
    Field(
        max_length=128, pattern=rf"^(?:{_WORD}|(?:[0-9]{{1,6}}\.)+[A-Za-z_]{{2}}[A-Za-z0-9_.]*)$"
    ),
]
Size = Annotated[int, Field(ge=1, le=2**31)]


class GraphFailed(RuntimeError):
    """An operation of a graph failed. Says which node and which kind of error, never a value."""


class _Value(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")


class TensorSpec(_Value):
    """Name, shape and dtype of a tensor."""

    name: Name
    shape: tuple[Size, ...]
    dtype: Literal["float32", "float64", "int64", "bool"]

    @property
    def count(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    def empty(self, users: int | None = None) -> Tensor:
        """An uninitialised tensor of this shape, or of `users` of them."""
        shape = self.shape if users is None else (users, *self.shape)
        return torch.empty(shape, dtype=DTYPES[self.dtype])

    @classmethod
    def of(cls, name: str, tensor: Tensor) -> "TensorSpec":
        """The spec of a tensor; raises ValueError for a dtype that graphs don't have."""
        for dtype, torch_dtype in DTYPES.items():
            if tensor.dtype == torch_dtype:
                return cls(name=name, shape=tuple(tensor.shape), dtype=dtype)  # type: ignore[arg-type]
        raise ValueError(
            f"{name} has dtype {tensor.dtype}, expected one of {', '.join(DTYPES)}: convert it."
        )


class Constant(_Value):
    """A small tensor written out in the graph, in row-major order; shown to the owner."""

    spec: TensorSpec
    data: tuple[int | float | bool, ...]

    @field_validator("data")
    @classmethod
    def _without_negative_zeros(cls, data: tuple[int | float | bool, ...]) -> tuple[Any, ...]:
        """JSON's canonical form has one zero only, and what is traced must be what is sent."""
        return tuple(0.0 if type(value) is float and value == 0 else value for value in data)

    @model_validator(mode="after")
    def _matches_its_spec(self) -> "Constant":
        if len(self.data) != self.spec.count:
            raise ValueError(
                f"constant {self.spec.name} has {len(self.data)} values, "
                f"its shape {list(self.spec.shape)} needs {self.spec.count}"
            )
        kinds: dict[str, tuple[type, ...]] = {"bool": (bool,), "int64": (int,)}
        wanted = kinds.get(self.spec.dtype, (int, float))
        if any(type(value) not in wanted for value in self.data):
            raise ValueError(f"constant {self.spec.name} has values that aren't {self.spec.dtype}")
        if not all(abs(value) <= _LARGEST for value in self.data):
            raise ValueError(f"constant {self.spec.name} has values beyond {_LARGEST:.0e}")
        return self

    def tensor(self) -> Tensor:
        return torch.tensor(self.data, dtype=DTYPES[self.spec.dtype]).reshape(self.spec.shape)


class Node(_Value):
    """One operation: `name = op(*args, **kwargs)`, arguments as described in the module."""

    name: Name
    op: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.]{1,64}$")]
    args: tuple[Any, ...]
    kwargs: dict[str, Any] = {}

    @field_validator("args")
    @classmethod
    def _normal_args(cls, args: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(_normal(value) for value in args)

    @field_validator("kwargs")
    @classmethod
    def _normal_kwargs(cls, kwargs: dict[str, Any]) -> dict[str, Any]:
        return {key: _normal(value) for key, value in kwargs.items()}

    def references(self) -> list[str]:
        """Names of the tensors this node reads, in order of appearance."""
        found: list[str] = []
        _collect([*self.args, *self.kwargs.values()], found)
        return found


class Graph(_Value):
    """Inputs (state tensors, then the user tensors it uses), constants, nodes, outputs.

    Every name is defined once and before it is used.
    """

    inputs: tuple[TensorSpec, ...]
    constants: tuple[Constant, ...] = ()
    nodes: tuple[Node, ...]
    outputs: tuple[tuple[Name, Name], ...]

    @model_validator(mode="after")
    def _is_well_formed(self) -> "Graph":
        known = set[str]()
        for spec in self.inputs:
            if _INTERNAL_NAME.fullmatch(spec.name):
                raise ValueError(f"{spec.name!r} is a name that graphs give to their own nodes")
            _define(spec.name, known)
        for constant in self.constants:
            _define(constant.spec.name, known)
        for node in self.nodes:
            _require(node.references(), known, node.name)
            _define(node.name, known)
        _require([ref for _, ref in self.outputs], known, "the outputs")
        names = [name for name, _ in self.outputs]
        if not names or len(set(names)) != len(names):
            raise ValueError("a graph needs at least one output, each name once")
        return self

    @property
    def state(self) -> tuple[TensorSpec, ...]:
        """The inputs that are public state rather than one user's tensors."""
        return tuple(spec for spec in self.inputs if spec.name not in USER_TENSORS)

    @property
    def user(self) -> tuple[str, ...]:
        """Names of the user tensors that the graph reads."""
        return tuple(spec.name for spec in self.inputs if spec.name in USER_TENSORS)

    def run(
        self, values: dict[str, Tensor], seen: Callable[[str, Any], None] | None = None
    ) -> dict[str, Tensor]:
        """Run the graph on the tensors named by `inputs` (others are ignored).

        Pure, and works under `torch.func.vmap` and `torch.func.grad`.

        Args:
            seen: is told each node's name and what it gave.

        Raises:
            GraphFailed: an input is missing or an operation failed (says where, never a value).
            OperationRefused: an operation isn't on the allow-list; nothing was run.
        """
        missing = [spec.name for spec in self.inputs if spec.name not in values]
        if missing:
            raise GraphFailed(f"The graph needs inputs that weren't given: {', '.join(missing)}.")
        tensors: dict[str, Any] = {spec.name: values[spec.name] for spec in self.inputs}
        tensors |= self._constants
        for node, function, spent in self._program:
            args = [_bound(value, tensors) for value in node.args]
            kwargs = {key: _bound(value, tensors) for key, value in node.kwargs.items()}
            try:
                tensors[node.name] = function(*args, **kwargs)
            except Exception as error:
                # The message of the error may quote private values, its type can't.
                kind = type(error).__name__
                raise GraphFailed(f"{node.name} = {node.op} failed with {kind}.") from None
            if seen is not None:
                seen(node.name, tensors[node.name])
            for name in spent:
                del tensors[name]
        return {name: tensors[ref] for name, ref in self.outputs}

    def output_specs(self) -> tuple[TensorSpec, ...]:
        """Shapes and dtypes of the outputs, derived without computing anything.

        Raises:
            GraphFailed, OperationRefused: as `run`; ValueError: a dtype that graphs don't have.
        """
        with FakeTensorMode(allow_non_fake_inputs=True):
            results = self.run({spec.name: spec.empty() for spec in self.inputs})
            return tuple(TensorSpec.of(name, tensor) for name, tensor in results.items())

    @cached_property
    def _constants(self) -> dict[str, Tensor]:
        # Kept for later runs, on numbers too: real ones, also where shapes alone are derived.
        with unset_fake_temporarily():
            return {constant.spec.name: constant.tensor() for constant in self.constants}

    @cached_property
    def _program(self) -> list[tuple[Node, Any, list[str]]]:
        """Nodes with their operators, and the names that no later node reads."""
        kept = {ref for _, ref in self.outputs}
        program = []
        for node in reversed(self.nodes):
            spent = sorted({node.name, *node.references()} - kept)
            kept.update(spent)
            program.append((node, operation(node.op), spent))
        return program[::-1]


def reference(name: str) -> dict[str, Any]:
    """The JSON value that stands for the tensor `name`."""
    return {"ref": name}


def _define(name: str, known: set[str]) -> None:
    if name in known:
        raise ValueError(f"the name {name!r} is defined twice")
    known.add(name)


def _require(names: list[str], known: set[str], where: str) -> None:
    for name in names:
        if name not in known:
            raise ValueError(f"{where} uses {name!r}, which isn't defined before it")


def _normal(value: Any, depth: int = 0) -> Any:
    """The one form in which an argument is written, or ValueError."""
    if depth > _MAXIMUM_DEPTH:
        raise ValueError("an argument is nested too deeply")
    if isinstance(value, list | tuple):
        return [_normal(item, depth + 1) for item in value]
    if isinstance(value, dict):
        return _normal_tagged(value)
    if isinstance(value, float):
        return _normal_float(value)
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 2**53:
        raise ValueError("an integer argument must be smaller than 2^53")
    if value is None or isinstance(value, bool | int | str):
        return value
    raise ValueError(f"an argument of type {type(value).__name__} has no JSON form")


def _normal_float(value: float) -> Any:
    if math.isnan(value):
        raise ValueError("NaN isn't allowed as a constant")
    if math.isinf(value):
        return {"float": "inf" if value > 0 else "-inf"}
    # As in `Constant`, there is one zero only.
    return {"float": value or 0.0} if value.is_integer() else value


def _normal_tagged(value: dict[str, Any]) -> dict[str, Any]:
    if len(value) == 1:
        [(tag, content)] = value.items()
        if (tag == "ref" and isinstance(content, str)) or (tag == "dtype" and content in DTYPES):
            return value
        if tag == "float" and content in ("inf", "-inf"):
            return value
        if tag == "float" and type(content) in (int, float) and abs(content) <= _LARGEST:
            return _normal_float(float(content))
    raise ValueError('an argument may be {"ref": name}, {"dtype": name} or {"float": whole number}')


def _collect(value: Any, found: list[str]) -> None:
    if isinstance(value, list):
        for item in value:
            _collect(item, found)
    elif isinstance(value, dict) and "ref" in value:
        found.append(value["ref"])


def _bound(value: Any, tensors: dict[str, Any]) -> Any:
    """The Python argument that a JSON argument stands for."""
    if isinstance(value, list):
        return [_bound(item, tensors) for item in value]
    if not isinstance(value, dict):
        return value
    [(tag, content)] = value.items()
    if tag == "ref":
        return tensors[content]
    return DTYPES[content] if tag == "dtype" else float(content)
