"""A plan as its author writes it: what runs at every domain, and what happens with the totals.

A contribution or loss is plain PyTorch about one user; it is traced, and only its graph travels.
`update` and `metrics` run on the author's side, on noised totals: post-processing, any code at all.
"""

import inspect
import math
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from network.smpc.ring import smallest_width
from policies.accounting import Part, calibrate
from policies.admission import Bounds, largest_total
from policies.graph import Graph, TensorSpec
from policies.plan import Plan as ApprovablePlan
from policies.plan import RosterEntry, Step
from policies.trace import trace

State = Mapping[str, Tensor]
_CLIPPED_BITS = 22
"""A clipped contribution has an integer norm near 2^22: fine steps, and exact in float32."""


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
    """

    name: str
    items: int
    interactions: int
    users: int
    catalogue: str
    public: bool


@dataclass(frozen=True)
class Sum:
    """A step that releases noised sums of what each user contributes.

    Attributes:
        contribution: (state, user) -> tensors by name.
        clip_norm: bound on the joint L2 norm of one user's contribution.
        releases: how many totals are released.
        weight: this step's part of the privacy budget, relative to the other steps' weights.
        after, every: one release after every `every` releases of step `after`.
        update: (state, totals, noise) -> new state, on the author's side; `noise` is the standard
            deviation of the noise in every released number.
        metrics: totals -> figures to show, on the author's side.
    """

    name: str
    contribution: Callable[[State, Any], Mapping[str, Tensor]]
    clip_norm: float
    releases: int = 1
    weight: float = 1.0
    sampling_rate: float = 1.0
    after: str | None = None
    every: int | None = None
    update: Callable[[State, State, float], State] | None = None
    metrics: Callable[[State], Mapping[str, float]] | None = None


@dataclass(frozen=True)
class Gradient:
    """A step that releases noised sums of the gradients of a per-user loss.

    Attributes:
        loss: (state, user) -> scalar; differentiated by the node, for each user alone.
        parameters: names of the state tensors to differentiate with respect to.
        clip_norm, releases, weight, sampling_rate, after, every, update, metrics: as for `Sum`.
    """

    name: str
    loss: Callable[[State, Any], Tensor]
    parameters: Sequence[str]
    clip_norm: float
    releases: int = 1
    weight: float = 1.0
    sampling_rate: float = 1.0
    after: str | None = None
    every: int | None = None
    update: Callable[[State, State, float], State] | None = None
    metrics: Callable[[State], Mapping[str, float]] | None = None


@dataclass(frozen=True)
class Plan:
    """Steps, their starting state and the privacy asked for.

    Attributes:
        state: public tensors that the steps read and the updates replace.
        epsilon: of the whole plan, spare attempts included; None: without noise, NOT PRIVATE,
            accepted only where the owner declared the data set public.
        delta: of the differential privacy statement.
        collusion: t, how many partners may collude; default max(1, (N - 1) // 2).
        threshold: tau, how many partners must survive a round; default all of them. Fewer need
            more noise: every domain adds variance sigma^2 / (tau - t).
        spare_attempts: how many failed attempts may be repeated.
        memory: (state, user) -> the user's private vector; never leaves her node.
        scores: (state, memory) -> a score per item; never leaves the node.
    """

    name: str
    purpose: str
    data: DataSet
    steps: Sequence[Sum | Gradient]
    state: State
    epsilon: float | None = 8.0
    delta: float = 1e-5
    collusion: int | None = None
    threshold: int | None = None
    spare_attempts: int = 2
    memory: Callable[[State, Any], Tensor] | None = None
    scores: Callable[[State, Tensor], Tensor] | None = None
    _bound: dict[str, ApprovablePlan] = field(default_factory=dict, repr=False, compare=False)

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
        memory = self.memory and trace(_named("memory", self.memory), dict(self.state), bounds)
        plan = ApprovablePlan(
            name=self.name,
            purpose=self.purpose,
            scientist=scientist,
            dataset=self.data.name,
            catalogue=self.data.catalogue,
            roster=tuple(sorted(roster, key=lambda entry: entry.name)),
            collusion=self._collusion(len(roster)),
            threshold=len(roster) if self.threshold is None else self.threshold,
            delta=self.delta,
            spare_attempts=self.spare_attempts,
            steps=tuple(
                self._step(step, noise, bounds)
                for step, noise in zip(self.steps, multipliers, strict=True)
            ),
            memory=memory,
            scores=self._trace_scores(memory, bounds),
            public=self.epsilon is None,
        )
        # No domain has more users than all together, so admission will find no larger total.
        rings = [smallest_width(largest_total(plan, step, self.data.users)) for step in plan.steps]
        steps = (
            step.model_copy(update={"ring": bits})
            for step, bits in zip(plan.steps, rings, strict=True)
        )
        return plan.model_copy(update={"steps": tuple(steps)})

    def _collusion(self, domains: int) -> int:
        return self.collusion if self.collusion is not None else max(1, (domains - 1) // 2)

    def _noise_multipliers(self) -> tuple[float, ...]:
        if self.epsilon is None:
            return (0.0,) * len(self.steps)
        parts = [Part(step.weight, step.sampling_rate, step.releases) for step in self.steps]
        return calibrate(parts, self.epsilon, self.delta, self.spare_attempts)

    def _step(self, step: Sum | Gradient, noise: float, bounds: Bounds) -> Step:
        function = step.contribution if isinstance(step, Sum) else step.loss
        graph = trace(function, dict(self.state), bounds)
        return Step(
            name=step.name,
            kind="sum" if isinstance(step, Sum) else "gradient",
            graph=graph,
            source=_source(function),
            state=graph.state,
            outputs=self._outputs(step, graph),
            clip_norm=float(step.clip_norm),
            noise_multiplier=float(noise),
            sampling_rate=float(step.sampling_rate),
            releases=step.releases,
            after=step.after,
            every=step.every,
            scale=2 ** max(0, _CLIPPED_BITS - math.ceil(math.log2(step.clip_norm))),
        )

    def _outputs(self, step: Sum | Gradient, graph: Graph) -> tuple[TensorSpec, ...]:
        if isinstance(step, Gradient):
            return tuple(TensorSpec.of(name, self.state[name]) for name in step.parameters)
        return graph.output_specs()

    def _trace_scores(self, memory: Graph | None, bounds: Bounds) -> Graph | None:
        if self.scores is None or memory is None:
            return None
        (spec,) = memory.output_specs()
        scores = self.scores
        return trace(
            lambda state, user: {"scores": scores(state, user.memory)},
            {**self.state, "memory": torch.zeros(spec.count)},
            bounds,
        )


def noise_std(approved: ApprovablePlan, step: Step) -> float:
    """Standard deviation of the noise in every released number of a step, in the step's units.

    All N domains add a share of variance sigma^2 / (tau - t), so N / (tau - t) times the
    accounted variance is really there.
    """
    shares = len(approved.roster) / (approved.threshold - approved.collusion)
    return step.noise_multiplier * step.clip_norm * math.sqrt(shares)


def _named(name: str, function: Callable[[State, Any], Tensor]) -> Callable:
    return lambda state, user: {name: function(state, user)}


def _source(function: Callable) -> str:
    try:
        return textwrap.dedent(inspect.getsource(function))
    except (OSError, TypeError):
        return "(source not available)"
