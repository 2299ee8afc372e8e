"""Tensors that partners hold in shares, and what their author can do with them: all but look.

    kept = fed.tensors(plan)                    # an approved plan with kept steps
    counts = kept.share("count")["counts"]      # every domain computes its part and keeps a share
    rate = (1000 * counts + kept.share("more")["counts"]).mean()
    print(rate.reveal())                        # noised, charged, and the only way out

An `SMPCTensor` is a name and what is proven of it. The shares never leave their nodes.
"""

import json
import math
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import safetensors.torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from network.client import NodeClient, NodeRefused, NodeUnreachable
from network.dealer import ask_dealer
from network.products import carry_product
from network.program import Plan
from network.rounds import RoundAborted, run_attempt, tensor_of, was_begun, was_opened
from network.smpc.agreement import sharing_of
from network.smpc.sharing import TensorKey, keys_transcript, verify_keys
from network.smpc.tensors import Operation, digest_of_matrix, planned, shared_name
from network.smpc.triples import Factors
from network.training import RunInterrupted, charged_attempts, progress_of
from policies import sensitivity
from policies.plan import Plan as ApprovablePlan
from policies.plan import Step
from policies.sensitivity import Proven, TensorRefused

_DIGITS = 20
"""Public numbers are rounded to so many bits: relative to themselves, or to the largest entry of
their matrix. What is proven is proven of the rounded ones."""


@dataclass(frozen=True)
class TensorShape:
    """What can be known of a tensor without revealing it."""

    shape: tuple[int, ...]


class SMPCTensor:
    """A tensor of private numbers that no one holds.

    Arithmetic gives new tensors: `+`, `-`, a public number or matrix times it, `sum`, `mean`,
    slices, `reshape`, `concatenate`. All of it is exact on integers of the ring Z_2^64; what could
    overflow is refused before it is computed.

    Attributes:
        name: hash of the plan and of how the tensor was made.
        proven: its shape, unit, bounds and sources (`policies.sensitivity`).
    """

    __array_ufunc__ = None
    """numpy leaves `matrix @ tensor` to the tensor."""

    def __init__(self, home: "Tensors", name: str, proven: Proven) -> None:
        self._home = home
        self.name = name
        self.proven = proven

    @property
    def shape(self) -> tuple[int, ...]:
        return self.proven.shape

    @property
    def sensitivity(self) -> float:
        """How far one user can move it: the L2 norm, in its own numbers."""
        return float(self.proven.sensitivity)

    @property
    def precision(self) -> float:
        """The step between two numbers that it can hold."""
        return float(abs(self.proven.unit))

    def noise_std(self, paid_by: str | None = None) -> float:
        """Standard deviation of the noise that `reveal` would add to every number."""
        return self._home.noise_std(self.proven, paid_by)

    def reveal(self, paid_by: str | None = None) -> NDArray[np.float64]:
        """The tensor with noise, for everybody to see: one approved release, charged by each owner.

        Args:
            paid_by: the kept step whose releases this is one of; default the first of the plan.

        Raises:
            TensorRefused: its noise can't be added, or all releases are used up.
            RunInterrupted: a domain failed; says which. Call again: it costs a spare attempt only
                where it was charged.
        """
        return self._home.reveal(self, paid_by)

    def sum(self, axis: int | None = None) -> "SMPCTensor":
        """The sum over an axis, or of everything."""
        return self._home.apply(Operation(do="sum", of=(self.name,), axis=self._axis(axis)), self)

    def mean(self, axis: int | None = None) -> "SMPCTensor":
        """The mean over an axis, or of everything: exact, since only the unit is divided."""
        total = self.sum(axis)
        return total._scaled(Fraction(total.proven.length, self.proven.length))

    def reshape(self, *shape: int) -> "SMPCTensor":
        """The same numbers in another shape, row by row."""
        return self._home.apply(Operation(do="reshape", of=(self.name,), shape=shape), self)

    @staticmethod
    def concatenate(tensors: Sequence["SMPCTensor"], axis: int = 0) -> "SMPCTensor":
        """Tensors one after another along an axis."""
        if not tensors:
            raise TensorRefused("Concatenate needs at least one tensor.")
        axis = tensors[0]._axis(axis) or 0
        names = tuple(tensor.name for tensor in tensors)
        return tensors[0]._home.apply(Operation(do="concatenate", of=names, axis=axis), *tensors)

    def __add__(self, other: Any) -> "SMPCTensor":
        if not isinstance(other, SMPCTensor):
            return NotImplemented
        return self._home.apply(Operation(do="add", of=(self.name, other.name)), self, other)

    def __sub__(self, other: Any) -> "SMPCTensor":
        return self + -other if isinstance(other, SMPCTensor) else NotImplemented

    def __neg__(self) -> "SMPCTensor":
        return self._scaled(Fraction(-1))

    def __mul__(self, other: Any) -> "SMPCTensor":
        if isinstance(other, SMPCTensor):
            return self._home.multiply(self, other, matrices=False)
        return self._scaled(_rounded(other))

    __rmul__ = __mul__

    def __truediv__(self, other: Any) -> "SMPCTensor":
        return (
            NotImplemented if isinstance(other, SMPCTensor) else self._scaled(1 / _rounded(other))
        )

    def __matmul__(self, other: Any) -> "SMPCTensor":
        if isinstance(other, SMPCTensor):
            return self._home.multiply(self, other, matrices=True)
        return self._mapped(other, "right")

    def __rmatmul__(self, other: Any) -> "SMPCTensor":
        return self._mapped(other, "left")

    def __getitem__(self, index: Any) -> "SMPCTensor":
        """Slices with positive steps, integers and one Ellipsis."""
        bounds, shape = _bounds(index, self.shape)
        part = self._home.apply(Operation(do="slice", of=(self.name,), bounds=bounds), self)
        return part if part.shape == shape else part.reshape(*shape)

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("a tensor without axes has no length")
        return self.shape[0]

    def get(self) -> TensorShape:
        """Its shape. The numbers come by `reveal` alone."""
        return TensorShape(self.shape)

    def __repr__(self) -> str:
        return f"SMPCTensor(shape={self.shape}, held by {len(self._home.nodes)} domains)"

    def __reduce__(self) -> tuple[type[TensorShape], tuple[tuple[int, ...]]]:
        return TensorShape, (self.shape,)

    def __array__(self, *_: Any, **__: Any) -> NoReturn:
        raise TypeError(
            f"A shared tensor of shape {self.shape} has no numbers here. reveal() publishes it "
            "with noise."
        )

    def __iter__(self) -> NoReturn:
        raise TypeError("a shared tensor isn't iterated; take slices of it")

    def __bool__(self) -> NoReturn:
        raise TypeError("whether a shared tensor is true would tell of its numbers")

    def _scaled(self, factor: Fraction) -> "SMPCTensor":
        sensitivity.rescaled(self.proven, factor)
        return self._home.apply(Operation(do="scale", of=(self.name,), factor=str(factor)), self)

    def _mapped(self, matrix: ArrayLike, side: Any) -> "SMPCTensor":
        integers, unit = _integers(matrix)
        sensitivity.rescaled(self.proven, unit)
        operation = Operation(
            do=side,
            of=(self.name,),
            factor=str(unit),
            shape=integers.shape,
            matrix=digest_of_matrix(integers),
        )
        return self._home.apply(operation, self, matrix=integers)

    def _axis(self, axis: int | None) -> int | None:
        if axis is None or 0 <= axis < len(self.shape):
            return axis
        if -len(self.shape) <= axis < 0:
            return axis + len(self.shape)
        raise TensorRefused(f"A tensor of shape {self.shape} has no axis {axis}.")


class Tensors:
    """What one approved plan keeps in shares among its domains.

    Args:
        folder: where the transcripts of what is revealed are kept.
        dealer_url: where the plan's dealer answers; None: there are no products of tensors.
    """

    def __init__(
        self,
        nodes: Mapping[str, NodeClient],
        plan: Plan,
        approved: ApprovablePlan,
        folder: Path,
        dealer_url: str | None = None,
    ) -> None:
        self.nodes = nodes
        self.approved = approved
        self.folder = folder
        self._plan = plan
        self._dealer_url = dealer_url

    def share(self, step: str, state: Mapping[str, Tensor] | None = None) -> dict[str, SMPCTensor]:
        """Have every domain compute a kept step and share it: its outputs by name.

        Nothing is released, so nothing is charged.

        Args:
            state: the public tensors that the step reads; default the plan's.

        Raises:
            TensorRefused: the plan keeps no such step.
            NodeRefused, NodeUnreachable: names the domain. Try again with all domains up.
        """
        definition = self.kept_step(step)
        number = int.from_bytes(os.urandom(4), "big")
        agreement = sharing_of(self.approved, step, number)
        where = {"step": step, "number": number}
        answers = self.everywhere("tensor_key", **where)
        keys = [TensorKey.from_dict(json.loads(answers[name])) for name in sorted(answers)]
        transcript = keys_transcript(agreement, verify_keys(agreement, keys))
        said = json.dumps([key.to_dict() for key in keys])
        packed = _packed(definition, self._plan.state if state is None else state)
        answers = self.everywhere("tensor_share", **where, keys=said, state=packed)
        parts = sensitivity.outputs_of(sensitivity.of_step(self.approved, definition), definition)
        found = {}
        for spec, (begin, end, part) in zip(definition.outputs, parts, strict=True):
            name = shared_name(self.approved.hash, transcript, begin, end)
            found[spec.name] = SMPCTensor(self, name, part)
        self._agree(answers, [tensor.name for tensor in found.values()])
        return found

    def apply(
        self,
        operation: Operation,
        *of: SMPCTensor,
        matrix: NDArray[np.int64] | None = None,
    ) -> SMPCTensor:
        """Have every domain apply a public-linear map to its shares.

        Raises:
            TensorRefused: tensors of another run, or bounds that forbid it; nothing was done.
        """
        if any(tensor._home.approved.hash != self.approved.hash for tensor in of):
            raise TensorRefused("Tensors of different plans are held by different agreements.")
        proven, _ = planned(operation, [tensor.proven for tensor in of], matrix)
        packed = octets(np.zeros(0, np.int64) if matrix is None else matrix)
        answers = self.everywhere("tensor_apply", operation=operation.text, matrix=packed)
        name = operation.name(self.approved.hash)
        self._agree(answers, {"name": name, "proven": proven.to_json()})
        return SMPCTensor(self, name, proven)

    def multiply(self, x: SMPCTensor, y: SMPCTensor, matrices: bool) -> SMPCTensor:
        """The secret product of two tensors, elementwise or of matrices.

        Raises:
            TensorRefused: the plan or this handle has no dealer, or bounds forbid it.
            DealerError: the dealer doesn't answer.
            NodeRefused: a domain refused; also where the dealer lied.
        """
        if self._dealer_url is None or self.approved.dealer is None:
            raise TensorRefused(
                "Products of two tensors need a dealer: name it in ct.Plan(dealer=...), and say "
                "where it answers in fed.tensors(plan, dealer=...)."
            )
        if {x._home.approved.hash, y._home.approved.hash} != {self.approved.hash}:
            raise TensorRefused("Tensors of different plans are held by different agreements.")
        proven = sensitivity.multiplied(x.proven, y.proven, matrices)
        factors = Factors(x.shape, y.shape, matrices)

        def tell(phase: str, told: Mapping[str, tuple[Any, NDArray]]) -> dict[str, Any]:
            return self._ask(
                "tensor_multiply",
                {
                    name: {"phase": phase, "said": json.dumps(said), "words": octets(words)}
                    for name, (said, words) in told.items()
                },
            )

        deal = partial(ask_dealer, self._dealer_url)
        made = carry_product(self.approved, deal, factors, x.name, y.name, tell)
        name = str(next(iter(made.values())).get("name"))
        for domain, said in made.items():
            if said != {"name": name, "proven": proven.to_json()}:
                raise NodeRefused(domain, f"{domain} made another product than the others.")
        return SMPCTensor(self, name, proven)

    def finish(self) -> None:
        """End the plan: its tensors are gone, and what it held of the budgets goes back."""
        state = {name: t.detach().contiguous().clone() for name, t in self._plan.state.items()}
        packed = np.frombuffer(safetensors.torch.save(state), dtype=np.uint8)
        self.everywhere("finish", state=packed)

    def drop(self, *tensors: SMPCTensor) -> None:
        """Free the domains' memory of these tensors."""
        self.everywhere("tensor_drop", names=json.dumps([tensor.name for tensor in tensors]))

    def noise_std(self, proven: Proven, paid_by: str | None) -> float:
        """See `SMPCTensor.noise_std`."""
        sigma = sensitivity.noise_share(proven, self.approved, self.kept_step(paid_by))
        return math.sqrt(len(self.nodes)) * sigma * abs(float(proven.unit))

    def reveal(self, tensor: SMPCTensor, paid_by: str | None) -> NDArray[np.float64]:
        """See `SMPCTensor.reveal`."""
        step = self.kept_step(paid_by)
        sensitivity.noise_share(tensor.proven, self.approved, step)
        named = f"{tensor.name}/{tensor.proven.length}"
        try:
            release, attempt = self._next(step, named)
            opened = run_attempt(
                self.nodes, self.approved, step.name, release, attempt, b"", self.folder, named
            )
        except RoundAborted as aborted:
            raise RunInterrupted(
                f"{aborted.domain} failed in {aborted.phase}: {aborted}\nNothing was opened. A "
                "domain that restarted has lost its tensors; with all up, reveal again."
            ) from None
        except (NodeUnreachable, NodeRefused) as error:
            raise RunInterrupted(str(error)) from None
        numbers = opened.total.astype(np.float64) * float(tensor.proven.unit)
        return numbers.reshape(tensor.shape)

    def kept_step(self, name: str | None) -> Step:
        """The kept step of that name, or the first one.

        Raises:
            TensorRefused: there is none.
        """
        for step in self.approved.steps:
            if step.kept is not None and name in (None, step.name):
                return step
        raise TensorRefused(f"The plan keeps no step {name!r}: write kept=True in it.")

    def everywhere(self, method: str, **arguments: Any) -> dict[str, Any]:
        """Call `coterie.METHOD` on every node at once; gives the answers by domain."""
        return self._ask(method, dict.fromkeys(self.nodes, arguments))

    def _ask(self, method: str, told: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
        def ask(name: str) -> Any:
            timeout_s = float(self.approved.deadline_s)
            node, arguments = self.nodes[name], told[name]
            return node.stream(method, timeout_s, plan_hash=self.approved.hash, **arguments)

        with ThreadPoolExecutor(len(told)) as pool:
            calls = {name: pool.submit(ask, name) for name in told}
        return {name: call.result() for name, call in calls.items()}

    def _next(self, step: Step, tensor: str) -> tuple[int, int]:
        """(release, attempt) under which to reveal: one that was interrupted, or the next."""
        charged = charged_attempts(progress_of(self.nodes, self.approved), step.name)
        for release in range(step.releases):
            attempts = charged.get(release, {})
            last = max(attempts, default=-1)
            if not any(states.count("charged") for states in attempts.values()):
                return release, last + 1
            begun = was_begun(self.folder, step.name, release, last)
            if begun and not was_opened(self.folder, step.name, release, last):
                everywhere = attempts[last].count("charged") == len(self.nodes)
                again = everywhere and tensor == tensor_of(self.folder, step.name, release, last)
                return release, last if again else last + 1
        raise TensorRefused(
            f"All {step.releases} releases of step '{step.name}' are used. Submit a new plan."
        )

    def _agree(self, answers: Mapping[str, Any], expected: Any) -> None:
        for name, answer in answers.items():
            if json.loads(answer) != expected:
                raise NodeRefused(name, f"{name} made another tensor than the one asked for.")


def octets(words: NDArray) -> NDArray[np.uint8]:
    """64-bit words as they travel: little-endian, row by row."""
    return np.frombuffer(words.astype(words.dtype.newbyteorder("<")).tobytes(), np.uint8)


def _rounded(number: Any) -> Fraction:
    """A public number at `_DIGITS` significant bits.

    Raises:
        TensorRefused: it isn't a finite number, or 0.
    """
    if isinstance(number, Fraction | int) and not isinstance(number, bool) and number:
        return Fraction(number)
    if not isinstance(number, float | np.floating | np.integer) or not (
        np.isfinite(number) and number
    ):
        raise TensorRefused(f"A public factor is a finite number other than 0, not {number!r}.")
    mantissa, exponent = math.frexp(float(number))
    return Fraction(round(mantissa * 2**_DIGITS), 2**_DIGITS) * Fraction(2) ** exponent


def _integers(matrix: ArrayLike) -> tuple[NDArray[np.int64], Fraction]:
    """A public matrix as integers of at most `_DIGITS` bits, times a power of two.

    Raises:
        TensorRefused: it isn't a matrix of finite numbers, or all are 0.
    """
    values = np.asarray(matrix, dtype=np.float64)
    if values.ndim != 2 or not values.size or not np.isfinite(values).all() or not values.any():
        raise TensorRefused("A public matrix has two axes and finite numbers, not all of them 0.")
    largest = float(np.abs(values).max())
    exact = largest <= 2**_DIGITS and bool((values == np.rint(values)).all())
    bits = 0 if exact else _DIGITS - math.frexp(largest)[1]
    return np.rint(np.ldexp(values, bits)).astype(np.int64), Fraction(2) ** -bits


def _bounds(
    index: Any, shape: tuple[int, ...]
) -> tuple[tuple[tuple[int, int, int], ...], tuple[int, ...]]:
    """(begin, end, step) of each axis, and the shape without the axes that integers took away."""
    parts = list(index) if isinstance(index, tuple) else [index]
    if Ellipsis in parts:
        at = parts.index(Ellipsis)
        parts[at : at + 1] = [slice(None)] * (len(shape) - len(parts) + 1)
    parts += [slice(None)] * (len(shape) - len(parts))
    if len(parts) != len(shape):
        raise TensorRefused(f"Too many indices for a tensor of shape {shape}.")
    bounds, left = [], []
    for part, size in zip(parts, shape, strict=True):
        if isinstance(part, slice):
            begin, end, step = part.indices(size)
            left.append(len(range(begin, end, step)))
        elif isinstance(part, int | np.integer) and -size <= part < size:
            begin, end, step = int(part) % size, int(part) % size + 1, 1
        else:
            raise TensorRefused(f"{part!r} is no index of an axis of {size} elements.")
        bounds.append((begin, end, step))
    return tuple(bounds), tuple(left)


def _packed(step: Step, state: Mapping[str, Tensor]) -> NDArray[np.uint8]:
    wanted = {spec.name: state[spec.name].detach().contiguous().clone() for spec in step.state}
    return np.frombuffer(safetensors.torch.save(wanted), dtype=np.uint8)
