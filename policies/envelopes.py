"""A yes given in advance: which plans an owner approves before she has seen them.

The owner signs the envelope with her own key on her own machine, as she would sign a plan; her node
only keeps the signed text. When a plan comes that lies within it, that text *is* the approval: it
travels with the run, and every partner's node checks the owner's signature and, from plan and
envelope alone, that the one covers the other. So a node that was broken into can approve nothing
that its owner didn't. What depends on the past (how many plans, how much epsilon altogether) is
kept by the owner's own node, whose ledger decides whether it takes part at all.
"""

import hashlib
from collections.abc import Sequence
from datetime import datetime
from functools import lru_cache
from typing import Annotated, Any, Literal

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import Field, ValidationError

from policies.accounting import (
    ADJACENCY,
    Event,
    RenyiFilter,
    epsilon_at_every_partner,
    plan_epsilon,
)
from policies.approvals import (
    Approval,
    Hex64,
    Statement,
    read_statement,
    sign_statement,
    validity,
)
from policies.canonical import canonical
from policies.likeness import likeness_of, model_of, roster_of
from policies.plan import Plan


class EnvelopeError(ValueError):
    """The envelope can't be made so; the text says which limit and what was expected."""


class Envelope(Statement):
    """Every plan within all of these limits is approved.

    Attributes:
        data_set: the data set's name.
        scientists: keys that sign plans, hex; their plans only.
        roster: SHA-256 of the partners and their keys (`likeness.roster_of`).
        like: `likeness.likeness_of` of the approved plan: only repetitions of it, which may
            differ in name, purpose and note, where seeds are written. None: other numbers too.
        models: `likeness.model_of` of what may be computed.
        plans: how many plans at most.
        epsilon: of each plan, at its own delta.
        total_epsilon: of all plans under this envelope, the Renyi filter's figure at `delta`.
        delta: of each plan at most.
        releases: of each plan at most, spare attempts included.
        noise_multiplier: of every release at least.
        collusion: t at least.
        explanation: SHA-256 of the explanation of the plan it was made from, as it was shown.
        partners: how many there are; None in envelopes signed before this was said.
    """

    kind: Literal["envelope"] = "envelope"
    data_set: Annotated[str, Field(min_length=1)]
    scientists: Annotated[tuple[Hex64, ...], Field(min_length=1)]
    roster: Hex64
    like: Hex64 | None = None
    models: Annotated[tuple[Hex64, ...], Field(min_length=1)]
    plans: Annotated[int, Field(ge=1)]
    epsilon: Annotated[float, Field(gt=0)]
    total_epsilon: Annotated[float, Field(gt=0)]
    delta: Annotated[float, Field(gt=0, lt=1)]
    releases: Annotated[int, Field(ge=1)]
    noise_multiplier: Annotated[float, Field(gt=0)]
    collusion: Annotated[int, Field(ge=1)]
    explanation: Hex64
    partners: Annotated[int, Field(ge=1)] | None = None

    @classmethod
    def around(
        cls,
        plan: Plan,
        domain: str,
        *,
        plans: int,
        days: float,
        explanation: str,
        identical: bool = True,
        by: str = "",
        reason: str = "",
        now: datetime | None = None,
        **limits: Any,
    ) -> "Envelope":
        """The envelope of plans like this one.

        Args:
            identical: only repetitions that differ in their labels; else any plan of the same
                computation within the limits.
            limits: epsilon, total_epsilon, delta, releases, noise_multiplier; default: the plan's
                own, and what `plans` such plans cost together.

        Raises:
            EnvelopeError: the plan has no noise, or a limit is out of range or unknown.
        """
        if plan.public:
            raise EnvelopeError("A plan without noise can't be approved in advance.")
        signed, expires = validity(days, now)
        events = plan.events()
        epsilon = limits.get("epsilon", plan_epsilon(events, plan.delta))
        own: dict[str, Any] = {
            "epsilon": epsilon,
            # The filter's own figure, which is what the node adds up; repetitions just fit.
            "total_epsilon": max(plans * epsilon, RenyiFilter(plan.delta).epsilon(events * plans)),
            "delta": plan.delta,
            "releases": sum(event.count for event in events),
            "noise_multiplier": min(event.noise_multiplier for event in events),
        }
        try:
            return cls(
                domain=domain,
                by=by,
                reason=reason,
                signed=signed,
                expires=expires,
                data_set=plan.dataset,
                scientists=(plan.scientist,),
                roster=roster_of(plan),
                like=likeness_of(plan) if identical else None,
                models=(model_of(plan),),
                plans=plans,
                collusion=plan.collusion,
                explanation=explanation,
                partners=len(plan.roster),
                **{**own, **limits},
            )
        except ValidationError as error:
            first = error.errors()[0]
            raise EnvelopeError(f"{first['loc'][0]}: {first['msg']}") from None

    @property
    def hash(self) -> str:
        """SHA-256 of the envelope, hex: what tells it from others."""
        said = self.model_dump(mode="json")
        if self.partners is None:  # signed before envelopes said it
            del said["partners"]
        return hashlib.sha256(canonical(said)).hexdigest()

    def misses(self, plan: Plan, now: datetime | None = None) -> list[str]:
        """Why the plan is not within it, a sentence each; empty if it is."""
        if not self.holds(now):
            return [f"the envelope expired at {self.expires}"]
        found = [sentence for holds, sentence in self._fixed(plan) if not holds]
        return found or list(self._numbers(plan))

    def _fixed(self, plan: Plan) -> Sequence[tuple[bool, str]]:
        return (
            (not plan.public, "the plan has no noise"),
            (plan.dataset == self.data_set, f"the plan is on '{plan.dataset}'"),
            (plan.scientist in self.scientists, "the plan is another scientist's"),
            (roster_of(plan) == self.roster, "the plan has other partners or keys"),
            (model_of(plan) in self.models, "the plan computes something else"),
            (
                self.like in (None, likeness_of(plan)),
                "the plan differs in more than name, purpose and note",
            ),
        )

    def _numbers(self, plan: Plan) -> Sequence[str]:
        events = plan.events()
        releases = sum(event.count for event in events)
        noise = min(event.noise_multiplier for event in events)
        checks = (
            (plan.delta <= self.delta, f"delta is {plan.delta:g}, at most {self.delta:g}"),
            (releases <= self.releases, f"{releases} releases, at most {self.releases}"),
            (
                noise >= self.noise_multiplier,
                f"noise multiplier {noise:g}, at least {self.noise_multiplier:g}",
            ),
            (plan.collusion >= self.collusion, f"t is {plan.collusion}, at least {self.collusion}"),
        )
        found = [sentence for holds, sentence in checks if not holds]
        # The costliest check last: epsilon takes a tenth of a second.
        if not found and (epsilon := plan_epsilon(events, plan.delta)) > self.epsilon:
            found.append(f"epsilon {epsilon:.3f}, at most {self.epsilon:.3f}")
        return found

    def explain(self) -> str:
        """What signing it means, in sentences."""
        kind = (
            "plans identical to it but for name, purpose and note"
            if self.like
            else "plans of the same computation, within the limits below"
        )
        return "\n".join(
            [
                f"Envelope {self.hash[:16]} of {self.domain}, from {self.signed} to {self.expires}",
                f"Approves up to {self.plans} {kind},",
                f"  on '{self.data_set}', with the same partners, by scientist "
                f"{', '.join(key[:16] for key in self.scientists)}, tolerating at least "
                f"{self.collusion} colluding partners;",
                f"  each at most epsilon {self.epsilon:.3f} at delta {self.delta:g}, together at "
                f"most {self.total_epsilon:.3f} ({ADJACENCY});",
                f"  each at most {self.releases} releases, noise multiplier at least "
                f"{self.noise_multiplier:g}.",
                *self._everywhere(),
                "No such plan will be shown to you before it runs.",
            ]
        )

    def _everywhere(self) -> list[str]:
        if self.partners is None:
            return []
        most = [Event(self.noise_multiplier, 1.0, self.releases)]
        bound = epsilon_at_every_partner(most, self.delta, self.partners)
        return [
            f"  A person who is a user at all {self.partners} partners: each plan at most epsilon"
            f" {bound:.3f}."
        ]


def sign_envelope(key: Ed25519PrivateKey, envelope: Envelope) -> str:
    """The envelope under the owner's signature, as one line of text."""
    return sign_statement(key, envelope)


def read_consent(owner_key: str, domain: str, text: Any) -> Approval | Envelope | None:
    """The approval or envelope in `text`, if `owner_key` (hex) signed it for this domain."""
    return _read_consent(owner_key, domain, text) if isinstance(text, str) else None


@lru_cache(maxsize=256)  # a run asks for the same ones at every step of every round
def _read_consent(owner_key: str, domain: str, text: str) -> Approval | Envelope | None:
    return read_statement(Approval, owner_key, domain, text) or read_statement(
        Envelope, owner_key, domain, text
    )


def why_not_approved(
    plan: Plan, owner_key: str, domain: str, text: Any, now: datetime | None = None
) -> str | None:
    """Why `text` isn't an owner's approval of `plan` at `domain` that holds now; None if it is.

    `text` is the owner's signed approval, or a signed envelope that covers the plan.
    """
    found = read_consent(owner_key, domain, text)
    if found is None:
        return f"{domain}'s owner has not validly signed this plan"
    if isinstance(found, Envelope):
        missed = found.misses(plan, now)
        return f"{domain}'s owner has not approved this plan: {missed[0]}" if missed else None
    if found.plan != plan.hash:
        return f"{domain}'s owner has not validly signed this plan"
    return None if found.holds(now) else f"{domain}'s approval expired at {found.expires}"
