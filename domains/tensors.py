"""The tensors that a run keeps on this node: its shares of them, in memory and bounded.

No call gives a share out. What can be asked is to share a kept step's private sum, to map tensors
linearly into others, and, through a round like any other's, to have one revealed with noise.
"""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from numpy.typing import NDArray

from network.smpc.agreement import product_of, sharing_of
from network.smpc.ring import Elements
from network.smpc.sharing import Sharing, TensorKey
from network.smpc.tensors import (
    MAX_FACTOR,
    MAX_MULTIPLY_ADDS,
    Operation,
    planned,
    product_name,
    shared_name,
)
from network.smpc.triples import Factors, Multiplication
from policies import sensitivity
from policies.plan import Plan, Step
from policies.sensitivity import Proven, TensorRefused

MAX_BYTES = 2**29
"""All runs of a node together keep no more."""
MAX_TENSORS = 4096
"""One run keeps no more."""
_PRODUCT_BYTES = 256
"""A product's triples and messages take no more for each element of its factors and itself."""

PrivateSum = Callable[[Step, bytes | str], NDArray[np.int64]]
"""(step, state or its digest) -> this domain's clipped sum in integer units, without noise."""


@dataclass
class Memory:
    """What is left for tensors on this node."""

    free: int = MAX_BYTES
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self, size: int) -> None:
        """Set `size` bytes aside.

        Raises:
            TensorRefused: they aren't there.
        """
        with self._lock:
            if size > self.free:
                raise TensorRefused(
                    f"This node has no room left for a tensor of {size} bytes: drop some."
                )
            self.free -= size

    def give(self, size: int) -> None:
        with self._lock:
            self.free += size


@dataclass(frozen=True)
class Kept:
    """A tensor: what is proven of it, and this domain's share, flat."""

    proven: Proven
    share: Elements = field(repr=False)


@dataclass(frozen=True)
class _Product:
    """A product that is being made, and the memory set aside for it."""

    multiplication: Multiplication
    proven: Proven
    size: int


class KeptTensors:
    """The tensors of one run. Callers hold the run's lock.

    Args:
        me: this domain's name on the roster.
        private_sum: computes this domain's part of a kept step.
        memory: of the node.
    """

    def __init__(
        self,
        me: str,
        plan: Plan,
        signing_key: Ed25519PrivateKey,
        private_sum: PrivateSum,
        memory: Memory,
    ) -> None:
        self._me = me
        self._plan = plan
        self._signing_key = signing_key
        self._private_sum = private_sum
        self._memory = memory
        self._tensors: dict[str, Kept] = {}
        self._sharing: Sharing | None = None
        self._shared: dict[str, int] = {}
        self._product: _Product | None = None

    def key(self, step: str, number: int) -> TensorKey:
        """Begin to share a kept step's sum; replaces what was begun before.

        Args:
            number: of this sharing, 0 to 2^32 - 1; the same at every domain.

        Raises:
            TensorRefused: the step isn't kept, or was shared too often.
        """
        definition = self._kept_step(step)
        most = definition.releases + self._plan.spare_attempts
        if self._shared.get(step, 0) >= most:
            raise TensorRefused(f"{self._me}: step '{step}' was shared {most} times, as approved.")
        agreement = sharing_of(self._plan, step, number)
        self._sharing = Sharing(self._me, agreement, self._signing_key)
        return self._sharing.signed_key

    def share(
        self, step: str, number: int, keys: Sequence[TensorKey], state: bytes | str
    ) -> list[str]:
        """Compute this domain's part of a kept step and keep a share of the sum.

        Args:
            keys: of all domains, from `key`.
            state: the public state that the step reads.

        Returns:
            The names of the step's outputs, as tensors.

        Raises:
            SharingRefused: the keys aren't all there, or not signed for this.
            TensorRefused: `key` wasn't asked last for this, or there is no memory left.
        """
        definition, sharing = self._kept_step(step), self._sharing
        if sharing is None or sharing.agreement != sharing_of(self._plan, step, number):
            raise TensorRefused(f"{self._me}: ask for a key for this sharing first.")
        transcript = sharing.verify(keys)
        whole = sensitivity.of_step(self._plan, definition)
        parts = sensitivity.outputs_of(whole, definition)
        self._make_room(whole.length, len(parts))
        try:
            flat = sharing.share(self._private_sum(definition, state), keys)
        except BaseException:
            self._memory.give(8 * whole.length)
            raise
        finally:
            self._sharing = None
        self._shared[step] = self._shared.get(step, 0) + 1
        names = []
        for begin, end, proven in parts:
            names.append(shared_name(self._plan.hash, transcript, begin, end))
            self._tensors[names[-1]] = Kept(proven, flat[begin:end].copy())
        return names

    def begin_product(self, x: str, y: str, matrices: bool, number: int) -> TensorKey:
        """Begin x y of two kept tensors; replaces a product that was begun before.

        Args:
            matrices: the product of matrices, else of elements.
            number: of this product, 0 to 2^32 - 1; the same at every domain.

        Raises:
            TensorRefused: the plan has no dealer, a factor isn't kept here, or bounds forbid it.
        """
        dealer = self._plan.dealer
        if dealer is None:
            raise TensorRefused("The plan has no dealer, so its tensors can't be multiplied.")
        self._end_product()
        one, other = self.tensor(x), self.tensor(y)
        proven = sensitivity.multiplied(one.proven, other.proven, matrices)
        factors = Factors(one.proven.shape, other.proven.shape, matrices)
        sizes = factors.sizes
        work = sizes[0] * factors.as_matrices[2] if matrices else 0
        if max(sizes) > MAX_FACTOR or work > MAX_MULTIPLY_ADDS:
            raise TensorRefused(
                f"Factors and products have at most {MAX_FACTOR} elements: multiply parts of them."
            )
        agreement = product_of(self._plan, factors.digest(x, y), sizes[2], number)
        self._memory.take(_PRODUCT_BYTES * sum(sizes))
        self._product = _Product(
            Multiplication(
                self._me, agreement, self._signing_key, dealer.key, factors, one.share, other.share
            ),
            proven,
            _PRODUCT_BYTES * sum(sizes),
        )
        return self._product.multiplication.signed_key

    @property
    def multiplication(self) -> Multiplication:
        """The product that was begun last.

        Raises:
            TensorRefused: none was, or it is over.
        """
        if self._product is None:
            raise TensorRefused(f"{self._me}: no product was begun here.")
        return self._product.multiplication

    def end_product(self) -> str:
        """Keep the product, once its triple is known to be right; gives its name.

        Raises:
            DealerLied: it isn't. SharingRefused: not everybody's check was heard.
        """
        multiplication, product = self.multiplication, self._product
        assert product is not None
        name = product_name(self._plan.hash, multiplication.transcript)
        try:
            self._keep(name, product.proven, multiplication.product)
        finally:
            self._end_product()
        return name

    def _end_product(self) -> None:
        if self._product is not None:
            self._memory.give(self._product.size)
            self._product = None

    def apply(self, operation: Operation, matrix: NDArray[np.int64] | None) -> str:
        """Make a tensor of others; gives its name.

        Raises:
            TensorRefused: an operand isn't kept here, or the bounds forbid it.
        """
        name = operation.name(self._plan.hash)
        if name in self._tensors:
            return name
        parts = [self.tensor(each) for each in operation.of]
        proven, local = planned(operation, [part.proven for part in parts], matrix)
        self._keep(name, proven, lambda: local([part.share for part in parts]))
        return name

    def drop(self, names: Sequence[str]) -> None:
        """Forget these tensors; unknown ones are forgotten already."""
        for name in names:
            kept = self._tensors.pop(name, None)
            if kept is not None:
                self._memory.give(8 * kept.proven.length)

    def clear(self) -> None:
        """Forget everything."""
        self._sharing = None
        self._end_product()
        self.drop(list(self._tensors))

    def revealable(self, tensor: str, step: Step) -> tuple[Elements, float]:
        """A tensor that a release of `step` may reveal.

        Args:
            tensor: as in `Context.tensor`.

        Returns:
            This domain's share, uint64 [P], not a copy; and the sensitivity in integer units.

        Raises:
            TensorRefused: it isn't kept here, or its noise can't be added.
        """
        name, _, length = tensor.partition("/")
        kept = self.tensor(name)
        if str(kept.proven.length) != length:
            raise TensorRefused(f"{self._me}: the tensor has {kept.proven.length} elements.")
        sensitivity.noise_share(kept.proven, self._plan, step)
        return kept.share, sensitivity.units(kept.proven)

    def tensor(self, name: str) -> Kept:
        """A tensor that this run keeps.

        Raises:
            TensorRefused: it keeps none of that name.
        """
        kept = self._tensors.get(name)
        if kept is None:
            raise TensorRefused(
                f"{self._me}: this run keeps no such tensor. Tensors live in the node's memory; "
                "one that restarted has lost them: share again."
            )
        return kept

    def _keep(self, name: str, proven: Proven, compute: Callable[[], Elements]) -> None:
        self._make_room(proven.length, 1)
        try:
            self._tensors[name] = Kept(proven, compute())
        except BaseException:
            self._memory.give(8 * proven.length)
            raise

    def _make_room(self, elements: int, tensors: int) -> None:
        if len(self._tensors) + tensors > MAX_TENSORS:
            raise TensorRefused(f"{self._me}: a run keeps {MAX_TENSORS} tensors; drop some.")
        self._memory.take(8 * elements)

    def _kept_step(self, name: str) -> Step:
        found = [step for step in self._plan.steps if step.name == name and step.kept is not None]
        if not found:
            raise TensorRefused(f"{self._me}: the plan keeps no step '{name[:64]}'.")
        return found[0]
