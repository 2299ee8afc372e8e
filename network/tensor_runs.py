"""What one approved plan keeps in shares: where its tensors are made and revealed.

kept = fed.tensors(plan)
counts = kept.share("count")["counts"]      # an `SMPCTensor`; `network.tensors`
"""

import json
import math
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray
from torch import Tensor

from network.client import NodeClient, NodeRefused, NodeUnreachable
from network.computing import carry
from network.dealer import ask_dealer
from network.journal import RunInterrupted
from network.program import Plan
from network.rounds import RoundAborted, run_attempt, tensor_of, was_begun, was_opened
from network.smpc.agreement import sharing_of
from network.smpc.comparisons import Comparison, Offer
from network.smpc.messages import PART_BYTES, MalformedMessage, SharingRefused
from network.smpc.sharing import TensorKey, keys_transcript, verify_keys
from network.smpc.tensors import Made, Operation, Secret, planned, shared_name
from network.smpc.truncation import MAX_BITS
from network.states import end_run, model_of, saved, send_in_parts
from network.tensors import SMPCTensor
from network.training import charged_attempts, progress_of
from policies import sensitivity
from policies.plan import Plan as ApprovablePlan
from policies.plan import Step
from policies.sensitivity import Proven, TensorRefused

_MAX_ANSWER = 2**20
"""Characters of a node's answer about a tensor."""


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
            TensorRefused: the plan keeps no such step, or it reads another state.
            NodeRefused, NodeUnreachable: names the domain. Try again with all domains up.
        """
        if step is None:
            raise TensorRefused("Say which kept step is to be shared: share('counts').")
        definition = self.kept_step(step)
        read = _read_by(definition, self._plan.state if state is None else state)
        number = int.from_bytes(os.urandom(4), "big")
        agreement = sharing_of(self.approved, step, number)
        where = {"step": step, "number": number}
        answers = self.everywhere("tensor_key", **where)
        keys = [_key(name, answers[name]) for name in sorted(answers)]
        try:
            transcript = keys_transcript(agreement, verify_keys(agreement, keys))
        except SharingRefused as refused:
            raise NodeRefused(refused.culprit, str(refused)) from None
        said = json.dumps([key.to_dict() for key in keys])
        answers = self.everywhere("tensor_share", **where, keys=said, **self._carried(read))
        parts = sensitivity.outputs_of(sensitivity.of_step(self.approved, definition), definition)
        found = {}
        for spec, (begin, end, part) in zip(definition.outputs, parts, strict=True):
            name = shared_name(self.approved.hash, transcript, begin, end)
            found[spec.name] = SMPCTensor(self, name, part)
        self._agree(answers, [tensor.name for tensor in found.values()])
        return found

    def _carried(self, state: NDArray[np.uint8]) -> dict[str, Any]:
        """A state as `tensor_share` takes it; what is too long for a message goes before it."""
        if state.size <= PART_BYTES:
            return {"state": state}
        digest, within = blake3(state.data).hexdigest(), float(self.approved.deadline_s)

        def send(node: NodeClient) -> None:
            ask = partial(node.stream, timeout_s=within, plan_hash=self.approved.hash)
            send_in_parts(ask, state, digest)

        with ThreadPoolExecutor(len(self.nodes)) as pool:
            list(pool.map(send, self.nodes.values()))
        return {"state": state[:0], "state_digest": digest}

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
        self._ours(of)
        proven, _ = planned(operation, [tensor.proven for tensor in of], matrix)
        return self._applied(operation, proven, matrix)

    def _applied(
        self, operation: Operation, proven: Proven, matrix: NDArray[np.int64] | None = None
    ) -> SMPCTensor:
        packed = octets(np.zeros(0, np.int64) if matrix is None else matrix)
        answers = self.everywhere("tensor_apply", operation=operation.text, matrix=packed)
        name = operation.name(self.approved.hash)
        self._agree(answers, {"name": name, "proven": proven.to_json()})
        return SMPCTensor(self, name, proven)

    def _ours(self, of: tuple[SMPCTensor, ...]) -> None:
        for tensor in of:
            if not isinstance(tensor, SMPCTensor):
                raise TensorRefused(f"Expected shared tensors, not {type(tensor).__name__}.")
        if any(tensor._home.approved.hash != self.approved.hash for tensor in of):
            raise TensorRefused(
                "These tensors are of different plans, and each plan's are proven and paid for "
                "alone. Keep both steps in one plan, or reveal them first."
            )

    def multiply(self, x: SMPCTensor, y: SMPCTensor, matrices: bool) -> SMPCTensor:
        """The secret product of two tensors, elementwise or of matrices.

        Raises:
            TensorRefused: the plan or this handle has no dealer, or bounds forbid it.
            DealerError: the dealer doesn't answer.
            NodeRefused: a domain refused; also where the dealer lied.
        """
        do = "matrices" if matrices else "elements"
        return self._compute({"do": do, "of": (x.name, y.name)}, x, y)

    def truncate(self, x: SMPCTensor, bits: int) -> SMPCTensor:
        """See `SMPCTensor.truncate`."""
        whole = sensitivity.truncated(x.proven, bits)
        at_once = MAX_BITS // (sensitivity.bits_of(x.proven) + 2)
        length = x.proven.length
        asked = {"do": "truncate", "of": (x.name,), "dropped": bits}
        pieces = [
            self._compute({**asked, "begin": at, "end": min(at + at_once, length)}, x)
            for at in range(0, length, at_once)
        ]
        if len(pieces) == 1:
            return pieces[0]
        joined = Operation(do="join", of=tuple(piece.name for piece in pieces))
        found = self._applied(joined, whole)
        self.drop(*pieces)
        return found

    def compare(
        self,
        x: SMPCTensor,
        do: Literal["above", "clip", "argmax", "sigmoid"],
        low: int = 0,
        high: int = 0,
    ) -> SMPCTensor:
        """One operation of SPU's: see `network.smpc.comparisons.Comparison`.

        Raises:
            TensorRefused: the plan has no comparisons, or bounds forbid it.
            NodeRefused: a domain refused, or has no SPU; says how to install it.
        """
        if self.approved.comparisons is None:
            raise TensorRefused(
                "Comparisons need SPU at all three domains, and a plan that says so: "
                "ct.Plan(comparisons='spu'); docs/tensors.md."
            )
        self._ours((x,))
        if max(abs(low), abs(high)) >= 2**62:
            raise TensorRefused("A number to compare with lies beyond all that a tensor holds.")
        number = int.from_bytes(os.urandom(4), "big")
        asked = Comparison(do=do, of=x.name, low=str(low), high=str(high), number=number)
        proven = asked.planned(x.proven)
        offers = self.everywhere("tensor_offer", asked=json.dumps(asked.to_dict()))
        read = [_offer(name, offers[name]) for name in sorted(offers)]
        said = json.dumps([offer.to_dict() for offer in read])
        made = {n: _made(n, answer) for n, answer in
                self.everywhere("tensor_compare", offers=said).items()}  # fmt: skip
        return self._same(made, proven)

    def _compute(self, asked: Mapping[str, Any], *of: SMPCTensor) -> SMPCTensor:
        if self._dealer_url is None or self.approved.dealer is None:
            raise TensorRefused(
                "Products of two tensors and truncations need a dealer: name it in "
                "ct.Plan(dealer=...), and say where it answers in fed.tensors(plan, dealer=...)."
            )
        self._ours(of)
        secret = Secret(**asked, number=int.from_bytes(os.urandom(4), "big"))
        proven, work = secret.planned([tensor.proven for tensor in of])

        def tell(phase: str, told: Mapping[str, tuple[Any, NDArray]]) -> dict[str, Any]:
            return self._ask(
                "tensor_compute",
                {
                    name: {"phase": phase, "said": json.dumps(said), "words": octets(words)}
                    for name, (said, words) in told.items()
                },
            )

        deal = partial(ask_dealer, self._dealer_url)
        return self._same(carry(self.approved, deal, secret, work, tell), proven)

    def _same(self, made: Mapping[str, Made], proven: Proven) -> SMPCTensor:
        name = next(iter(made.values())).name
        for domain, said in made.items():
            if said.to_dict() != {"name": name, "proven": proven.to_json()}:
                raise NodeRefused(domain, f"{domain} made another tensor than the others.")
        return SMPCTensor(self, name, proven)

    def finish(self) -> None:
        """End the plan: its tensors are gone, and what it held of the budgets goes back.

        Raises:
            NodeRefused, NodeUnreachable: names the domain. Call again once it is there: where the
                plan has ended, nothing is done.
        """
        model, plan_hash = model_of(self.approved, self._plan.state), self.approved.hash
        for node in self.nodes.values():
            if node.read("progress", plan_hash=plan_hash)["status"] == "approved":
                within = float(self.approved.deadline_s)
                end_run(partial(node.stream, timeout_s=within, plan_hash=plan_hash), model)

    def drop(self, *tensors: SMPCTensor) -> None:
        """Free the domains' memory of these tensors.

        Raises:
            TensorRefused: they are no tensors of this plan.
        """
        self._ours(tensors)
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
        kept = [step for step in self.approved.steps if step.kept is not None]
        for step in kept:
            if name in (None, step.name):
                return step
        names = ", ".join(repr(step.name) for step in kept)
        raise TensorRefused(
            f"The plan keeps no step {name!r}; it keeps {names or 'none'}: write kept=True in it."
        )

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
            if _json(name, answer) != expected:
                raise NodeRefused(name, f"{name} made another tensor than the one asked for.")


def _json(name: str, answer: Any) -> Any:
    """What a node answers about a tensor.

    Raises:
        NodeRefused: it isn't JSON, or longer than any answer.
    """
    try:
        if not isinstance(answer, str) or len(answer) > _MAX_ANSWER:
            raise ValueError
        return json.loads(answer)
    except (ValueError, RecursionError):
        raise NodeRefused(name, f"{name} answers about a tensor what can't be read.") from None


def _offer(name: str, answer: Any) -> Offer:
    try:
        return Offer.from_dict(_json(name, answer))
    except MalformedMessage as error:
        raise NodeRefused(name, f"{name} answers what is no offer: {error}") from None


def _made(name: str, answer: Any) -> Made:
    try:
        return Made.from_dict(_json(name, answer))
    except MalformedMessage as error:
        raise NodeRefused(name, f"{name} answers what is no tensor: {error}") from None


def _key(name: str, answer: Any) -> TensorKey:
    try:
        return TensorKey.from_dict(_json(name, answer))
    except MalformedMessage as error:
        raise NodeRefused(name, f"{name} answers what is no key: {error}") from None


def octets(words: NDArray) -> NDArray[np.uint8]:
    """64-bit words as they travel: little-endian, row by row."""
    return np.frombuffer(words.astype(words.dtype.newbyteorder("<")).tobytes(), np.uint8)


def _read_by(step: Step, state: Mapping[str, Tensor]) -> NDArray[np.uint8]:
    """What the step reads of a state, as safetensors.

    Raises:
        TensorRefused: a tensor isn't there, or of another shape or dtype.
    """
    if not isinstance(state, Mapping):
        raise TensorRefused(f"A state is a dict of tensors by name, not {type(state).__name__}.")
    for spec in step.state:
        given = state.get(spec.name)
        found = type(given).__name__
        if isinstance(given, Tensor):
            found = f"{tuple(given.shape)} of {given.dtype}"
        if found != f"{tuple(spec.shape)} of torch.{spec.dtype}":
            raise TensorRefused(
                f"Step '{step.name}' reads '{spec.name}', a tensor {tuple(spec.shape)} of "
                f"torch.{spec.dtype}; this state has {found}."
            )
    return np.frombuffer(saved({spec.name: state[spec.name] for spec in step.state}), np.uint8)
