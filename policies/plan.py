"""A plan: everything a data scientist asks for, as one value with one hash.

A plan is an ordered list of steps, each a private sum with its own graph, clip norm, noise,
sampling rate, number of releases and cadence. Its canonical JSON text (RFC 8785) is what
travels; the SHA-256 of that text is what owners approve and sign.
"""

import json
from collections.abc import Mapping
from functools import cached_property
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)

from policies.accounting import Event, spares
from policies.canonical import canonical, sha256_hex
from policies.clipping import Adaptive, Clipping, Flat, PerLayer, fits
from policies.graph import Graph, TensorSpec

MAXIMUM_TEXT = 4 * 2**20
"""In characters: several times the largest plan that admission lets pass. Reading the text of a
plan takes about a second for each million characters, before anything is known of it."""

VOTES = "votes_on_clip_norm"
"""Name of what an adaptive step releases beside its outputs."""

LARGEST_NOISE = 1e6
"""The largest noise multiplier that a plan may ask for."""

HexKey = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
NAME = r"^[A-Za-z0-9]([A-Za-z0-9_. -]{0,62}[A-Za-z0-9_.-])?$"
Label = Annotated[str, Field(pattern=NAME)]
Text = Annotated[str, Field(max_length=20_000)]
Count = Annotated[int, Field(ge=1, le=1_000_000)]
Finite = Annotated[float, Field(allow_inf_nan=False)]


class PlanUnreadable(ValueError):
    """The text isn't the canonical JSON of a plan. Says what is wrong with it."""


class _Value(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")


class RosterEntry(_Value):
    """One domain of a plan: its server's uid and its two Ed25519 verify keys (hex)."""

    name: Label
    server_uid: Label
    node_key: HexKey
    owner_key: HexKey


class Kept(_Value):
    """A step whose totals stay shared among the domains, as tensors; `policies.sensitivity`.

    Attributes:
        users: declared maximum of users at any one domain, from which bounds are proven.
    """

    users: Annotated[int, Field(ge=1, le=2**40)]


class Dealer(_Value):
    """Who deals multiplication triples: none of the roster, the hub or the scientist.

    Attributes:
        key: its Ed25519 verify key, hex.
    """

    name: Label
    key: HexKey


class Step(_Value):
    """One private sum, released `releases` times.

    Attributes:
        kind: "gradient": the graph returns a scalar "loss", which the node differentiates with
            respect to the state tensors named in `outputs`; "sum": its outputs are summed.
        graph: what is computed for each user.
        source: the author's Python, for reading only.
        state: public tensors the graph reads.
        outputs: the tensors that leave, noised, at each release.
        clip_norm: bound on the joint L2 norm of what one user adds, over all that leaves.
        clipping: how that bound is divided (`policies.clipping`); flat unless said otherwise.
        noise_multiplier: standard deviation of the accounted noise over `clip_norm`; 0 only for
            a public data set.
        sampling_rate: probability with which each user takes part in a release.
        releases: how many totals are revealed.
        after, every: one release after every `every` releases of step `after`; None: this step
            runs when the steps before it in the list are done.
        scale: integer units per 1.0, a power of two.
        ring: bits of the ring the sum is made in; admission proves that the total can't wrap.
        kept: its total isn't released; its `releases` pay for what is revealed of tensors made of
            kept steps, each with noise of `noise_multiplier` times what is proven of that tensor.
    """

    name: Label
    kind: Literal["gradient", "sum"]
    graph: Graph
    source: Text
    state: tuple[TensorSpec, ...]
    outputs: Annotated[tuple[TensorSpec, ...], Field(min_length=1)]
    clip_norm: Annotated[Finite, Field(gt=0, le=1e9)]
    clipping: Clipping = Flat()
    noise_multiplier: Annotated[Finite, Field(ge=0, le=LARGEST_NOISE)]
    sampling_rate: Annotated[Finite, Field(gt=0, le=1)] = 1.0
    releases: Count
    after: Label | None = None
    every: Count | None = None
    scale: Annotated[int, Field(ge=1, le=2**40)]
    ring: Literal[32, 64] = 64
    kept: Kept | None = None

    @model_serializer(mode="wrap")
    def _without_the_defaults(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """As `Plan`'s."""
        found: dict[str, Any] = dump(self)
        if self.kept is None:
            del found["kept"]
        return found

    @property
    def released(self) -> tuple[TensorSpec, ...]:
        """The tensors of one release in their order: outputs, and votes on an adaptive norm."""
        if not isinstance(self.clipping, Adaptive):
            return self.outputs
        return (*self.outputs, TensorSpec(name=VOTES, shape=(), dtype="float32"))

    @property
    def width(self) -> int:
        """Number of integers in one release."""
        return sum(spec.count for spec in self.released)

    def event(self, count: int = 1) -> Event:
        """The mechanism event of `count` releases of this step."""
        return Event(self.noise_multiplier, self.sampling_rate, count)

    @model_validator(mode="after")
    def _is_consistent(self) -> "Step":
        if self.scale & (self.scale - 1):
            raise ValueError(f"step {self.name!r}: scale must be a power of two, got {self.scale}")
        if (self.after is None) != (self.every is None):
            raise ValueError(f"step {self.name!r}: give both 'after' and 'every', or neither")
        names = [spec.name for spec in self.released]
        if len(set(names)) != len(names):
            raise ValueError(f"step {self.name!r} has two outputs of the same name")
        self._check_clipping()
        return self

    def _check_clipping(self) -> None:
        if isinstance(self.clipping, PerLayer) and len(self.clipping.norms) != len(self.outputs):
            raise ValueError(
                f"step {self.name!r} has {len(self.clipping.norms)} norms for "
                f"{len(self.outputs)} outputs"
            )
        if not fits(self.clipping, self.clip_norm):
            raise ValueError(
                f"step {self.name!r}: the squares of its norms add up to more than clip_norm^2"
            )


class Plan(_Value):
    """What is submitted, approved and executed. Equal plans have equal text and equal hash.

    Attributes:
        scientist: Ed25519 verify key of the data scientist, hex.
        catalogue: SHA-256 of the item catalogue that all domains share, hex.
        roster: the domains, in the order in which they are numbered.
        collusion: t, how many domains may collude without seeing less noise than accounted.
        threshold: tau, how many domains must survive a round.
        delta: of the differential privacy statement.
        spare_attempts: how many failed attempts may be repeated, each charged.
        memory: (state, user tensors[, memory]) -> {"memory": float32[d]}; run on the node, never
            released. Before a step that reads `memory` runs on a user, her memory becomes what this
            graph gives for that release's state; a graph that reads `memory` itself finds the last
            one, zeros at first.
        scores: (state, memory) -> {"scores": float32[items]}; run on the node, never released.
        public: the owners declared the data set public: noise may be 0. NOT PRIVATE.
        deadline_s: seconds that a domain may take over one step of a round before the others go on
            without it, or the attempt ends.
        two_domains: the roster has two domains, whose owners accept what that means: each can
            subtract its own part from the total, and sees the other's under the other's noise.
        aggregation: "smpc": masks (`network.smpc.aggregation`); "ckks": homomorphic encryption
            (`network.smpc.ckks`), where every domain adds all of the accounted noise.
        dealer: who deals triples for products of kept tensors; None: there are no such products.
        comparisons: "spu": kept tensors may be compared by SPU; None: they are not.
    """

    version: Literal[1] = 1
    name: Label
    purpose: Text
    scientist: HexKey
    dataset: Label
    population_note: Text = ""
    catalogue: HexKey
    roster: Annotated[tuple[RosterEntry, ...], Field(min_length=1, max_length=1000)]
    collusion: Annotated[int, Field(ge=0, le=1000)]
    threshold: Annotated[int, Field(ge=1, le=1000)]
    delta: Annotated[Finite, Field(gt=0, lt=1)]
    spare_attempts: Annotated[int, Field(ge=0, le=10_000)]
    steps: Annotated[tuple[Step, ...], Field(min_length=1, max_length=100)]
    memory: Graph | None = None
    scores: Graph | None = None
    public: bool = False
    aggregation: Literal["smpc", "ckks"] = "smpc"
    deadline_s: Annotated[int, Field(ge=1, le=86_400)] = 600
    two_domains: bool = False
    dealer: Dealer | None = None
    comparisons: Literal["spu"] | None = None

    @model_serializer(mode="wrap")
    def _without_the_defaults(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Plans from before there was a choice keep their text, and so their hash."""
        found: dict[str, Any] = dump(self)
        chosen = {
            "aggregation": "smpc",
            "deadline_s": 600,
            "two_domains": False,
            "dealer": None,
            "comparisons": None,
        }
        for name, default in chosen.items():
            if getattr(self, name) == default:
                del found[name]
        return found

    @model_validator(mode="after")
    def _is_consistent(self) -> "Plan":
        earlier: dict[str, Step] = {}
        for step in self.steps:
            if step.name in earlier:
                raise ValueError(f"two steps are named {step.name!r}")
            _check_cadence(step, earlier)
            earlier[step.name] = step
        return self

    @classmethod
    def from_json(cls, text: str) -> "Plan":
        """Read a plan from its canonical text.

        Raises:
            PlanUnreadable: the text is too long, isn't JSON, isn't canonical (so also: has
                duplicate keys or NaN) or doesn't describe a plan.
        """
        if len(text) > MAXIMUM_TEXT:
            raise PlanUnreadable(f"The plan has {len(text)} characters, at most {MAXIMUM_TEXT}.")
        _require_canonical(text)
        try:
            plan = cls.model_validate_json(text)
        except ValidationError as error:
            raise PlanUnreadable(f"The text doesn't describe a plan: {_told(error)}") from None
        if plan.to_json() != text:
            raise PlanUnreadable(
                "The text leaves out fields or writes values in another form than Plan.to_json()."
            )
        return plan

    def to_json(self) -> str:
        """The canonical text (RFC 8785)."""
        return self._canonical.decode()

    @cached_property
    def hash(self) -> str:
        """SHA-256 of the canonical text, hex: what is approved."""
        return sha256_hex(self._canonical)

    @property
    def noise_shares(self) -> int:
        """How many domains' noise adds up to the accounted variance.

        tau - t under masks: any tau survivors of which t subtract theirs. 1 under CKKS, where the
        hub and the holder of the key could decrypt a domain's sum alone.
        """
        return 1 if self.aggregation == "ckks" else self.threshold - self.collusion

    def step(self, name: str) -> Step:
        """The step of that name; raises KeyError."""
        for step in self.steps:
            if step.name == name:
                return step
        raise KeyError(f"The plan has no step {name!r}; it has {[s.name for s in self.steps]}.")

    def explain(self, since: "Plan | None" = None) -> str:
        """What an owner is shown (`policies.explanation`), with the changes since another plan."""
        from policies.explanation import explain

        return explain(self, since=since)

    def events(self) -> tuple[Event, ...]:
        """Everything the plan may cost: all releases, and the spare attempts at the dearest."""
        releases = tuple(step.event(step.releases) for step in self.steps)
        return (*releases, *spares(releases, self.spare_attempts))

    def schedule(self) -> tuple[tuple[str, int], ...]:
        """(step name, index of the release) in the order of execution; kept steps have no place."""
        order: list[tuple[str, int]] = []
        for step in self.steps:
            if step.after is None and step.kept is None:
                for release in range(step.releases):
                    self._append(step, release, order)
        return tuple(order)

    def _append(self, step: Step, release: int, order: list[tuple[str, int]]) -> None:
        order.append((step.name, release))
        for follower in self.steps:
            if follower.after == step.name and follower.every is not None:
                turn, rest = divmod(release + 1, follower.every)
                if rest == 0 and turn <= follower.releases:
                    self._append(follower, turn - 1, order)

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """A copy with some fields changed; its text and hash are its own."""
        copied = super().model_copy(update=update, deep=deep)
        for derived in ("_canonical", "hash"):
            copied.__dict__.pop(derived, None)
        return copied

    @cached_property
    def _canonical(self) -> bytes:
        return canonical(self.model_dump(mode="json"))


def _check_cadence(step: Step, earlier: dict[str, Step]) -> None:
    if step.after is None or step.every is None:
        return
    if step.kept is not None or (step.after in earlier and earlier[step.after].kept is not None):
        raise ValueError(f"step {step.name!r}: a kept step is revealed when its author asks for it")
    if step.after not in earlier:
        raise ValueError(f"step {step.name!r} runs after {step.after!r}, which must come before it")
    turns = earlier[step.after].releases // step.every
    if step.releases > turns:
        raise ValueError(
            f"step {step.name!r} has {step.releases} releases, but every {step.every} of the "
            f"{earlier[step.after].releases} releases of {step.after!r} makes only {turns}"
        )


def _require_canonical(text: str) -> None:
    try:
        value = json.loads(text, parse_int=_integer)
        same = canonical(value) == text.encode()
    except (ValueError, RecursionError, UnicodeError) as error:
        raise PlanUnreadable(
            f"The plan isn't JSON in canonical form: {type(error).__name__}. Send Plan.to_json()."
        ) from None
    if not same:
        raise PlanUnreadable(
            "The plan isn't in canonical form (RFC 8785): keys must be sorted and unique, "
            "numbers and spaces written in the one standard way. Send Plan.to_json()."
        )


def _integer(digits: str) -> Any:
    """JSON writes whole floats like integers; those beyond 2^53 can only be floats."""
    return float(digits) if len(digits) > 16 or abs(int(digits)) >= 2**53 else int(digits)


def _told(error: ValidationError) -> str:
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    return f"{where}: {first['msg']}" if where else first["msg"]
