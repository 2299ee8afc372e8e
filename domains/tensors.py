"""The tensors that a run keeps on this node: its shares of them, in memory and bounded.

No call gives a share out. What can be asked is to share a kept step's private sum, to map tensors
linearly into others, and, through a round like any other's, to have one revealed with noise.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from numpy.typing import NDArray

from domains.comparing import INSTALL, Comparing, Place
from domains.kept import Kept, Memory, Piece, whole_of
from domains.states import Octets
from network.smpc.agreement import comparison_of, computation_of, sharing_of
from network.smpc.attempt import Agreement
from network.smpc.comparisons import Comparison, Offer
from network.smpc.dealing import Computation
from network.smpc.ring import Elements
from network.smpc.sharing import Sharing, TensorKey
from network.smpc.tensors import Operation, Secret, computed_name, joined, planned, shared_name
from policies import sensitivity
from policies.plan import Plan, Step
from policies.sensitivity import Proven, TensorRefused

MAX_TENSORS = 4096
"""One run keeps no more."""
MAX_RUN_BYTES = 2**28
"""One run's tensors take no more, so that it leaves room for others."""
_DEALT_BYTES = 96
"""What a dealer deals, and all messages and sums of them, take no more for each number of it."""
_MAP_BYTES, _MATRIX_BYTES = 16, 48
"""A public map takes no more, while it lasts, for each element that goes in or comes out; one by a
matrix."""

PrivateSum = Callable[[Step, Octets | str], NDArray[np.int64]]
"""(step, state or its digest) -> this domain's clipped sum in integer units, without noise."""


@dataclass(frozen=True)
class _Begun:
    """A tensor that is being made, and the memory set aside for it."""

    computation: Computation
    proven: Proven
    size: int
    piece: Piece | None


class KeptTensors:
    """The tensors of one run. Callers hold the run's lock.

    Args:
        me: this domain's name on the roster.
        private_sum: computes this domain's part of a kept step.
        memory: of the node.
        spu: the file where the owner says where SPU is; `domains.comparing`.
    """

    def __init__(
        self,
        me: str,
        plan: Plan,
        signing_key: Ed25519PrivateKey,
        private_sum: PrivateSum,
        memory: Memory,
        spu: Path | None = None,
    ) -> None:
        self._me = me
        self._plan = plan
        self._signing_key = signing_key
        self._private_sum = private_sum
        self._memory = Memory(MAX_RUN_BYTES, memory)
        self._tensors: dict[str, Kept] = {}
        self._sharing: Sharing | None = None
        self._shared: dict[str, int] = {}
        self._begun: _Begun | None = None
        self._spu = spu
        self._comparing: tuple[Comparison, Comparing] | None = None

    def key(self, step: str, number: int) -> TensorKey:
        """Begin to share a kept step's sum; replaces what was begun before.

        Args:
            number: of this sharing, 0 to 2^32 - 1; the same at every domain.

        Raises:
            TensorRefused: the step isn't kept, or was shared too often, or the number is none.
        """
        definition = self._kept_step(step)
        most = definition.releases + self._plan.spare_attempts
        if self._shared.get(step, 0) >= most:
            raise TensorRefused(
                f"{self._me}: step '{step}' was computed {most} times, as approved, whatever came "
                "of it."
            )
        self._sharing = Sharing(self._me, self._agreement(step, number), self._signing_key)
        return self._sharing.signed_key

    def share(
        self, step: str, number: int, keys: Sequence[TensorKey], state: Octets | str
    ) -> list[str]:
        """Compute this domain's part of a kept step and keep a share of the sum.

        Args:
            keys: of all domains, from `key`.
            state: the public state that the step reads, or the digest of the one held.

        Returns:
            The names of the step's outputs, as tensors.

        Raises:
            SharingRefused: the keys aren't all there, or not signed for this.
            TensorRefused: `key` wasn't asked last for this, or there is no memory left.
        """
        definition, sharing = self._kept_step(step), self._sharing
        if sharing is None or sharing.agreement != self._agreement(step, number):
            raise TensorRefused(f"{self._me}: ask for a key for this sharing first.")
        transcript = sharing.verify(keys)
        whole = sensitivity.of_step(self._plan, definition)
        parts = sensitivity.outputs_of(whole, definition)
        self._make_room(whole.length, len(parts))
        try:
            # Counted before it is computed: how long that takes is seen, whatever becomes of it.
            self._shared[step] = self._shared.get(step, 0) + 1
            flat = sharing.share(self._private_sum(definition, state), keys)
        except BaseException:
            self._memory.give(8 * whole.length)
            raise
        finally:
            self._sharing = None
        names = []
        for begin, end, proven in parts:
            names.append(shared_name(self._plan.hash, transcript, begin, end))
            self._tensors[names[-1]] = Kept(proven, flat[begin:end].copy())
        return names

    def begin(self, asked: Secret) -> TensorKey:
        """Begin a computation with a dealer; replaces one that was begun before.

        Raises:
            TensorRefused: the plan has no dealer, a tensor isn't kept here, or bounds forbid it.
        """
        dealer = self._plan.dealer
        if dealer is None:
            raise TensorRefused(
                "The plan has no dealer, so its tensors can't be multiplied or truncated."
            )
        self._give_up()
        of = [self.tensor(name) for name in asked.of]
        proven, work = asked.planned([each.proven for each in of])
        agreement = computation_of(
            self._plan, work.digest(*asked.operands), work.drawn[-1], asked.number
        )
        size = _DEALT_BYTES * (sum(work.drawn) + work.opened)
        self._memory.take(size)
        shares, piece = [each.share for each in of], None
        if asked.do == "truncate":
            shares = [shares[0][asked.begin : asked.end]]
            piece = Piece(asked.of[0], of[0].proven, asked.dropped, asked.begin, asked.end)
        computation = Computation(self._me, agreement, self._signing_key, dealer.key, work, shares)
        self._begun = _Begun(computation, proven, size, piece)
        return computation.signed_key

    @property
    def computation(self) -> Computation:
        """The one that was begun last.

        Raises:
            TensorRefused: none was, or it is over.
        """
        if self._begun is None:
            raise TensorRefused(f"{self._me}: no product or truncation was begun here.")
        return self._begun.computation

    def end(self) -> str:
        """Keep the result, once what was dealt is known to be right; gives its name.

        Raises:
            DealerLied: it isn't. SharingRefused: not everybody's check was heard.
        """
        computation, begun = self.computation, self._begun
        assert begun is not None
        name = computed_name(self._plan.hash, computation.transcript)
        try:
            self._keep(name, begun.proven, computation.result, begun.piece)
        finally:
            self._give_up()
        return name

    def offer(self, asked: Comparison) -> Offer:
        """Begin a comparison; replaces one that was begun before.

        Raises:
            TensorRefused: the plan has no comparisons, there is no SPU here, the tensor isn't kept
                here, or bounds forbid it.
        """
        if self._plan.comparisons is None:
            raise TensorRefused("The plan has no comparisons: ct.Plan(comparisons='spu').")
        if self._spu is None:
            raise TensorRefused(f"{self._me}: there is no SPU here. To install it: {INSTALL}.")
        try:
            place = Place.read(self._spu)
        except TensorRefused as error:
            raise TensorRefused(f"{self._me}: {error}") from None
        proven = self.tensor(asked.of).proven
        asked.planned(proven)
        agreement = comparison_of(self._plan, asked.digest(), proven.length, asked.number)
        comparing = Comparing(self._me, agreement, self._signing_key, place)
        self._comparing = asked, comparing
        return comparing.offer

    def compare(self, offers: Sequence[Offer]) -> str:
        """Do the comparison that was begun, and keep the result; gives its name.

        Raises:
            TensorRefused: none was begun. SharingRefused: a partner's offer or SPU failed, or it
                took longer than the plan's deadline.
        """
        if self._comparing is None:
            raise TensorRefused(f"{self._me}: no comparison was begun here.")
        (asked, comparing), self._comparing = self._comparing, None
        x = self.tensor(asked.of)
        made = comparing.run(offers, asked.job(x.proven), x.share, self._plan.deadline_s)
        name = computed_name(self._plan.hash, comparing.transcript)
        self._keep(name, asked.planned(x.proven), lambda: made)
        return name

    def _give_up(self) -> None:
        if self._begun is not None:
            self._memory.give(self._begun.size)
            self._begun = None

    def apply(self, operation: Operation, matrix: NDArray[np.int64] | None) -> str:
        """Make a tensor of others; gives its name.

        Raises:
            TensorRefused: an operand isn't kept here, or the bounds forbid it.
        """
        name = operation.name(self._plan.hash)
        if name in self._tensors:
            return name
        parts = [self.tensor(each) for each in operation.of]
        if operation.do == "join":
            proven, local = joined(whole_of([part.piece for part in parts]))
        else:
            proven, local = planned(operation, [part.proven for part in parts], matrix)
        elements = proven.length + sum(part.proven.length for part in parts)
        size = _MAP_BYTES * elements
        if matrix is not None:
            size = _MATRIX_BYTES * (elements + matrix.size)
        with self._memory.taken(size):
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
        self._give_up()
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

    def _keep(
        self,
        name: str,
        proven: Proven,
        compute: Callable[[], Elements],
        piece: Piece | None = None,
    ) -> None:
        self._make_room(proven.length, 1)
        try:
            self._tensors[name] = Kept(proven, compute(), piece)
        except BaseException:
            self._memory.give(8 * proven.length)
            raise

    def _make_room(self, elements: int, tensors: int) -> None:
        if len(self._tensors) + tensors > MAX_TENSORS:
            raise TensorRefused(f"{self._me}: a run keeps {MAX_TENSORS} tensors; drop some.")
        self._memory.take(8 * elements)

    def _agreement(self, step: str, number: int) -> Agreement:
        try:
            return sharing_of(self._plan, step, number)
        except ValueError as error:
            raise TensorRefused(f"{self._me}: no such sharing: {error}.") from None

    def _kept_step(self, name: str) -> Step:
        found = [step for step in self._plan.steps if step.name == name and step.kept is not None]
        if not found:
            raise TensorRefused(f"{self._me}: the plan keeps no step '{name[:64]}'.")
        return found[0]
