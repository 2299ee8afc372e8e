"""A plan as its author writes it: what runs at every domain, and what happens with the totals.

A contribution or loss is plain PyTorch about one user; it is traced, and only its graph travels.
`update` and `metrics` run on the author's side, on noised totals: post-processing, any code at all.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from network.authoring import check_partners, check_plan, check_step
from network.clip_norms import (
    CLIPPED_BITS,
    AdaptiveClip,
    ClipNorm,
    clipping_of,
    divided_by,
    first_unit,
    scale_of,
    unit_name,
)
from network.smpc.ring import smallest_width
from policies.division import Part, calibrate
from policies.fidelity import check_same
from policies.graph import Graph, TensorSpec
from policies.modules import aliases, of_state, source_of, state_of, trainable
from policies.plan import Dealer, Kept, RosterEntry, Step
from policies.plan import Plan as ApprovablePlan
from policies.protection import largest_total
from policies.trace import TraceError, check_admissible, check_loss, traced
from policies.users import Bounds

State = Mapping[str, Tensor]
_NOISE_DIGITS = 9
"""Noise multipliers are rounded up to this many digits: the last bits of a bisection differ
between machines, and a plan's hash must not."""
_SOURCE_LENGTH = 20_000


@dataclass(frozen=True)
class DataSet:
    """What the partners declare together about their data sets of one name.

    Attributes:
        name: the data set's name at every domain.
        items: size of the shared item catalogue.
        interactions: declared maximum of interactions per user.
        users: declared maximum of users, summed over the domains.
        catalogue: SHA-256 of the catalogue, hex.
        public: every owner declared it public.
        users_at_one: declared maximum of users at any one domain; None: not above `users`.
    """

    name: str
    items: int
    interactions: int
    users: int
    catalogue: str
    public: bool
    users_at_one: int | None = None


@dataclass(frozen=True)
class Sum:
    """A step that releases noised sums of what each user contributes.

    Attributes:
        contribution: (state, user) -> tensors by name; (model, user) in a plan with a model.
        clip_norm: bound on the joint L2 norm of one user's contribution; or a bound for each of
            its tensors by name; or a bound that adapts (`AdaptiveClip`).
        releases: how many totals are released.
        weight: this step's part of the privacy budget, relative to the other steps' weights.
        after, every: one release after every `every` releases of step `after`.
        update: (state, totals, noise) -> new state, on the author's side; `noise` is the standard
            deviation of the noise in every released number.
        metrics: totals -> figures to show, on the author's side.
        kept: nothing is released by itself; the totals stay shared among the domains as tensors
            (`Federation.tensors`), of which `releases` results can be revealed.
    """

    name: str
    contribution: Callable[[Any, Any], Mapping[str, Tensor]]
    clip_norm: ClipNorm
    releases: int = 1
    weight: float = 1.0
    sampling_rate: float = 1.0
    after: str | None = None
    every: int | None = None
    update: Callable[[State, State, float], State] | None = None
    metrics: Callable[[State], Mapping[str, float]] | None = None
    kept: bool = False

    def __post_init__(self) -> None:
        check_step(self)


@dataclass(frozen=True)
class Gradient:
    """A step that releases noised sums of the gradients of a per-user loss.

    Attributes:
        loss: (state, user) -> scalar, or (model, user) in a plan with a model; differentiated by
            the node, for each user alone.
        parameters: names of the state tensors to differentiate with respect to, and the only ones
            that are released; None: all of the model's that require a gradient and that the loss
            uses (freeze the others with `requires_grad_(False)`).
        clip_norm, releases, weight, sampling_rate, after, every, update, metrics, kept: as for
            `Sum`.
    """

    name: str
    loss: Callable[[Any, Any], Tensor]
    parameters: Sequence[str] | None = None
    clip_norm: ClipNorm = 1.0
    releases: int = 1
    weight: float = 1.0
    sampling_rate: float = 1.0
    after: str | None = None
    every: int | None = None
    update: Callable[[State, State, float], State] | None = None
    metrics: Callable[[State], Mapping[str, float]] | None = None
    kept: bool = False

    def __post_init__(self) -> None:
        check_step(self)


@dataclass(frozen=True)
class Plan:
    """Steps, their starting state and the privacy asked for.

    Attributes:
        state: public tensors that the steps read and the updates replace.
        model: instead of `state`, a module whose parameters and float buffers are the state, by
            their names; contributions, losses, `memory` and `scores` then get the module itself.
        epsilon: of the whole plan, spare attempts included; None: without noise, NOT PRIVATE,
            accepted only where the owner declared the data set public.
        delta: of the differential privacy statement.
        collusion: t, how many partners may collude; default max(1, (N - 1) // 2).
        threshold: tau, how many partners must survive a round; default all of them. Fewer need
            more noise: every domain adds variance sigma^2 / (tau - t).
        spare_attempts: how many failed attempts may be repeated.
        deadline_s: seconds that a domain may take over one step of a round; then it is left out.
        two_domains: there are only two partners, and each may see the other's total under the
            other's full noise (it can subtract its own part); both owners read so and decide.
        aggregation: how domains' sums are added: "smpc", by masks, or "ckks", under homomorphic
            encryption with the whole noise at every domain (docs/ckks.md).
        memory: (state, user) -> the user's private vector; never leaves her node. Steps find it
            as `user.memory`, computed anew at each release from that release's state, and don't
            differentiate it.
        memory_size: length of a memory that is kept from release to release: `memory` then finds
            the last one as `user.memory`, zeros at first. None: it depends on nothing kept.
        scores: (state, memory) -> a score per item; never leaves the node.
        dealer: who deals triples for products of kept tensors (docs/tensors.md); None: no products.
        comparisons: "spu": kept tensors may be compared, by SPU among three domains; None: not.
    """

    name: str
    purpose: str
    data: DataSet
    steps: Sequence[Sum | Gradient]
    state: State = field(default_factory=dict)
    epsilon: float | None = 8.0
    delta: float = 1e-5
    collusion: int | None = None
    threshold: int | None = None
    spare_attempts: int = 2
    deadline_s: int = 600
    two_domains: bool = False
    aggregation: Literal["smpc", "ckks"] = "smpc"
    memory: Callable[[Any, Any], Tensor] | None = None
    scores: Callable[[Any, Tensor], Tensor] | None = None
    model: nn.Module | None = None
    memory_size: int | None = None
    dealer: Dealer | None = None
    comparisons: Literal["spu"] | None = None
    _bound: dict[str, ApprovablePlan] = field(default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_plan(self, (Sum, Gradient))
        if self.model is not None:
            if self.state:
                raise ValueError("Give a plan a state or a model (whose tensors are its state).")
            object.__setattr__(self, "state", state_of(self.model))
        adapted = {unit_name(s.name): s.clip_norm for s in self.steps}
        first = {n: first_unit(c) for n, c in adapted.items() if isinstance(c, AdaptiveClip)}
        object.__setattr__(self, "state", {**first, **self.state})

    def step(self, name: str) -> Sum | Gradient:
        return next(step for step in self.steps if step.name == name)

    def bind(self, roster: Sequence[RosterEntry], scientist: str) -> ApprovablePlan:
        """Trace, calibrate and write down the plan that domains will be asked to approve.

        Args:
            roster: the domains that take part.
            scientist: the author's verify key, 64 hex characters.

        Raises:
            TraceError: a contribution uses what can't be traced; says the line and what to write.
        """
        key = scientist + "".join(entry.node_key + entry.owner_key for entry in roster)
        if key not in self._bound:
            self._bound[key] = self._bind(roster, scientist)
        return self._bound[key]

    def _bind(self, roster: Sequence[RosterEntry], scientist: str) -> ApprovablePlan:
        bounds = Bounds(self.data.items, self.data.interactions)
        multipliers = self._noise_multipliers()
        memory = self._trace_memory(bounds)
        length = memory.output_specs()[0].count if memory else None
        plan = ApprovablePlan(
            name=self.name,
            purpose=self.purpose,
            scientist=scientist,
            dataset=self.data.name,
            catalogue=self.data.catalogue,
            roster=tuple(sorted(roster, key=lambda entry: entry.name)),
            collusion=max(1, (len(roster) - 1) // 2) if self.collusion is None else self.collusion,
            threshold=len(roster) if self.threshold is None else self.threshold,
            delta=self.delta,
            spare_attempts=self.spare_attempts,
            steps=tuple(
                self._step(step, noise, bounds, length, len(roster))
                for step, noise in zip(self.steps, multipliers, strict=True)
            ),
            memory=memory,
            scores=self._trace_scores(length, bounds),
            public=self.epsilon is None,
            deadline_s=self.deadline_s,
            two_domains=self.two_domains,
            aggregation=self.aggregation,
            dealer=self.dealer,
            comparisons=self.comparisons,
        )
        check_partners(plan.collusion, plan.threshold, len(roster))
        # No domain has more users than all together, so admission will find no larger total.
        rings = [smallest_width(largest_total(plan, step, self.data.users)) for step in plan.steps]
        steps = (
            step.model_copy(update={"ring": 64 if step.kept else bits})
            for step, bits in zip(plan.steps, rings, strict=True)
        )
        return plan.model_copy(update={"steps": tuple(steps)})

    def _noise_multipliers(self) -> tuple[float, ...]:
        if self.epsilon is None:
            return (0.0,) * len(self.steps)
        parts = [Part(step.weight, step.sampling_rate, step.releases) for step in self.steps]
        found = calibrate(parts, self.epsilon, self.delta, self.spare_attempts)
        return tuple(_rounded_up(noise) for noise in found)

    def _trace(
        self,
        function: Callable,
        bounds: Bounds,
        memory: int | None,
        trained: Callable[[Graph], Sequence[str]] = lambda graph: (),
    ) -> Graph:
        """The function's graph, compared with it.

        Args:
            trained: of the graph, the names by which its loss is differentiated.
        """
        state = dict(self.state)
        if memory is not None:
            state["memory"] = torch.zeros(memory)
        called = function if self.model is None else of_state(self.model, function)
        graph, lines = traced(called, state, bounds)
        check_admissible(graph, lines, bounds, memory)
        names = trained(graph)
        check_loss(graph, lines, state, names)
        check_same(graph, called, state, bounds, names)
        return graph

    def _step(
        self, step: Sum | Gradient, noise: float, bounds: Bounds, memory: int | None, domains: int
    ) -> Step:
        function = step.contribution if isinstance(step, Sum) else step.loss
        written = function
        if isinstance(step.clip_norm, AdaptiveClip):
            function = divided_by(function, unit_name(step.name))
        if self.memory is not None and self.memory_size is None:
            function, memory = _remembering(function, self.memory), None
        graph = self._trace(function, bounds, memory, lambda graph: self._trained(step, graph))
        outputs = self._outputs(step, graph)
        clip_norm, clipping = clipping_of(
            step.name, step.clip_norm, [spec.name for spec in outputs]
        )
        return Step(
            name=step.name,
            kind="sum" if isinstance(step, Sum) else "gradient",
            graph=graph,
            source=source_of(written, self.model)[:_SOURCE_LENGTH],
            state=graph.state,
            outputs=outputs,
            clip_norm=clip_norm,
            clipping=clipping,
            noise_multiplier=float(noise),
            sampling_rate=float(step.sampling_rate),
            releases=step.releases,
            after=step.after,
            every=step.every,
            scale=scale_of(clip_norm, self._digits(noise, domains) if step.kept else CLIPPED_BITS),
            kept=Kept(users=self._users_at_one) if step.kept else None,
        )

    @property
    def _users_at_one(self) -> int:
        return self.data.users_at_one or self.data.users

    def _digits(self, noise: float, domains: int) -> int:
        """Bits of a kept contribution's integer norm U, so that products can be revealed.

        With P people a total's norm is at most P U. A product's noise, at most z 2 P U^2 wide, must
        stay below 2^45, and the product itself below 2^62.
        """
        if self.dealer is None:
            return CLIPPED_BITS
        people = math.log2(domains * self._users_at_one)
        widest = 43 - people - math.log2(max(noise, 1.0))
        return max(1, min(CLIPPED_BITS, math.floor(widest / 2), math.floor(30 - people)))

    def _outputs(self, step: Sum | Gradient, graph: Graph) -> tuple[TensorSpec, ...]:
        if isinstance(step, Sum):
            return graph.output_specs()
        return tuple(
            TensorSpec.of(name, self.state[name]) for name in self._parameters(step, graph)
        )

    def _trained(self, step: Sum | Gradient, graph: Graph) -> list[str]:
        return [] if isinstance(step, Sum) else self._parameters(step, graph)

    def _parameters(self, step: Gradient, graph: Graph) -> list[str]:
        """The state tensors that a gradient step trains.

        Raises:
            TraceError: a name that isn't a float tensor of the state which the loss uses, or none.
        """
        used = {spec.name for spec in graph.state}
        if step.parameters is None:
            model = nn.Module() if self.model is None else self.model
            found = [name for name in trainable(model) if name in used]
            if not found:
                raise TraceError(
                    f"Step {step.name!r} trains nothing: name its parameters, or give the plan a "
                    "model with parameters that require a gradient and that the loss uses."
                )
            return found
        tied = aliases(self.model) if self.model is not None else {}
        for name in step.parameters:
            if name in tied:
                raise TraceError(
                    f"Step {step.name!r}: {name!r} is tied to {tied[name]!r}, one tensor: write "
                    f"{tied[name]!r}."
                )
            if name not in used or not self.state[name].is_floating_point():
                raise TraceError(
                    f"Step {step.name!r} can't train {name!r}: its loss uses no float tensor of "
                    f"that name. It uses {', '.join(sorted(used)) or 'none'}."
                )
        return list(step.parameters)

    def _trace_memory(self, bounds: Bounds) -> Graph | None:
        if self.memory is None:
            return None
        return self._trace(_named("memory", self.memory), bounds, self.memory_size)

    def _trace_scores(self, memory: int | None, bounds: Bounds) -> Graph | None:
        if self.scores is None or memory is None:
            return None
        scores = self.scores

        def of_user(state: Any, user: Any) -> dict[str, Tensor]:
            return {"scores": scores(state, user.memory)}

        return self._trace(of_user, bounds, memory)


def _named(name: str, function: Callable[[Any, Any], Tensor]) -> Callable:
    return lambda state, user: {name: function(state, user)}


def _remembering(function: Callable, memory: Callable[[Any, Any], Tensor]) -> Callable:
    """`function` with the user's memory computed inside: a given, not differentiated."""
    return lambda state, user: function(state, replace(user, memory=memory(state, user).detach()))


def _rounded_up(noise: float) -> float:
    """`noise` at `_NOISE_DIGITS` significant digits, never less."""
    if noise == 0:
        return 0.0
    places = _NOISE_DIGITS - 1 - math.floor(math.log10(noise))
    return math.ceil(noise * 10.0**places) / 10.0**places
