"""What a node checks before a plan may even be shown to its owner. It trusts nothing it is sent.

Everything is derived again from the graph and the owner's declaration: operations against the
allow-list, shapes and dtypes of every node (on fake tensors, nothing is computed), the range of
every index, memory and compute per user, outputs, the number of integers and bits that leave,
and that the noise is wide enough to count as Gaussian. A refusal names its rule.
"""

import math
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import grad, vmap

from policies import sensitivity
from policies.clipping import Adaptive, parts_of
from policies.graph import DTYPES, USER_TENSORS, Graph, GraphFailed, Node, TensorSpec
from policies.homomorphic import MAX_CIPHERTEXTS, MAX_DOMAINS, layout_of
from policies.mechanism import MAX_UNITS, noise_share_sigma
from policies.operations import ALLOWED, OperationRefused, operation
from policies.plan import Plan, Step
from policies.trace import Bounds, user_specs

__all__ = ["ALLOWED", "Bounds", "Limits", "PlanRefused", "Usage", "admit", "inspect"]

_INT64 = (-(2**63), 2**63 - 1)
_KEYWORDS = frozenset(
    [
        "dtype",
        "alpha",
        "beta",
        "check_errors",
        "upper",
        "left",
        "unitriangular",
        "correction",
        "keepdim",
        "rounding_mode",
        "approximate",
    ]
)
# Characters that can hide or reorder what an owner reads: control, format (bidirectional
# overrides, zero width), surrogates, private use, unassigned, line separators.
_HIDDEN_CATEGORIES = frozenset(["Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"])
_MINIMUM_NOISE = 8.0
_WRAP_BITS = 64

Range = tuple[int, int]


class PlanRefused(ValueError):
    """A plan breaks a rule of admission.

    Attributes:
        rule: short name of the rule, for ledgers and tables.
    """

    def __init__(self, rule: str, message: str) -> None:
        super().__init__(message)
        self.rule = rule


@dataclass(frozen=True)
class Limits:
    """How large a plan may be on one node.

    Attributes:
        nodes: operations in one graph.
        plan_nodes: operations in all graphs of a plan.
        constants: numbers written out in one graph.
        parts: results or arguments of one operation.
        user_bytes: all intermediate tensors of one user together.
        work: multiply-adds of the whole plan over the declared number of users.
        state_bytes: public tensors of one step.
        width: integers in one release.
    """

    nodes: int = 5_000
    plan_nodes: int = 20_000
    constants: int = 16_384
    parts: int = 1_024
    user_bytes: int = 512 * 2**20
    work: float = 1e15
    state_bytes: int = 256 * 2**20
    width: int = 2**26


@dataclass(frozen=True)
class Usage:
    """What a graph needs for one user.

    Attributes:
        bytes: of all its intermediate tensors together (an upper bound).
        work: multiply-adds.
        outputs: specs of its outputs.
    """

    bytes: int
    work: float
    outputs: tuple[TensorSpec, ...]


def admit(plan: Plan, bounds: Bounds, public: bool, limits: Limits | None = None) -> None:
    """Check a plan against a data set's declaration; returns if it may be shown to the owner.

    Args:
        plan: as parsed by `Plan.from_json`.
        bounds: the data set's declared sizes, users among them.
        public: whether this owner declared the data set public.
        limits: the node's resources.

    Raises:
        PlanRefused: names the rule, what was found and what would pass.
    """
    limits = limits or Limits()
    if bounds.users is None:
        raise ValueError("Admission needs the declared bound on users.")
    _check_public(plan, public)
    _check_roster(plan)
    _check_dealer(plan)
    _check_text(plan)
    _check_nodes(plan, limits)
    length, per_user = _check_memory(plan, bounds, limits)
    work = per_user * bounds.users
    memory_state = set(plan.memory.state) if plan.memory is not None else set()
    for step in plan.steps:
        usage = _check_step(step, bounds, limits, length, memory_state)
        # Differentiating costs about twice the forward pass again.
        forward = 3 * usage.work if step.kind == "gradient" else usage.work
        remembered = per_user if "memory" in step.graph.user else 0.0
        work += (forward + remembered) * bounds.users * step.releases
        _check_noise(plan, step)
        _check_ring(plan, step, bounds.users)
        if plan.aggregation == "ckks":
            _check_ciphertexts(plan, step)
        if step.kept is not None:
            _check_kept(plan, step, bounds.users)
    if work > limits.work:
        raise PlanRefused(
            "compute",
            f"The plan needs about {work:.1e} multiply-adds, at most {limits.work:.1e}: "
            "use fewer releases or a smaller model.",
        )


def inspect(
    graph: Graph, bounds: Bounds, limits: Limits | None = None, memory: int | None = None
) -> Usage:
    """Derive shapes, dtypes, index ranges and cost of every node without computing anything.

    Args:
        memory: length of a user's private memory, if the graph may read one.

    Raises:
        PlanRefused: an operation, argument, shape, index or size that isn't allowed.
    """
    return _Inspection(graph, bounds, limits or Limits(), memory).run()


def _check_public(plan: Plan, public: bool) -> None:
    if plan.public and not public:
        raise PlanRefused(
            "public",
            "The plan says that the data set is public; its owner hasn't declared that. "
            "Submit a plan with noise.",
        )


def _check_roster(plan: Plan) -> None:
    size, t, tau = len(plan.roster), plan.collusion, plan.threshold
    for what in ("name", "server_uid", "node_key", "owner_key"):
        if len({getattr(entry, what) for entry in plan.roster}) != size:
            raise PlanRefused("roster", f"Two domains of the roster have the same {what}.")
    if (size == 2) != plan.two_domains or size > 64:
        raise PlanRefused(
            "roster",
            f"The roster has {size} domains and two_domains is {plan.two_domains}; expected 3 to "
            "64, or 2 with two_domains=True: each of two can subtract its own part from the total.",
        )
    if t < 1:
        raise PlanRefused("threshold", f"collusion is {t}; at least 1 partner may collude.")
    if tau > size or tau - t < 1:
        raise PlanRefused(
            "threshold", f"threshold is {tau}; expected more than {t} and at most {size}."
        )
    if plan.aggregation == "ckks" and plan.scientist in {
        key for entry in plan.roster for key in (entry.node_key, entry.owner_key)
    }:
        raise PlanRefused("roster", "Under CKKS the scientist mustn't be a domain of the roster.")
    if 2 * tau <= size + t:
        raise PlanRefused(
            "threshold",
            f"threshold is {tau}; with {size} domains of which {t} may collude it must be at "
            f"least {(size + t) // 2 + 1} (2 tau > N + t).",
        )


def _check_dealer(plan: Plan) -> None:
    """Whoever deals triples must be nobody who takes part."""
    if plan.dealer is None:
        return
    if all(step.kept is None for step in plan.steps):
        raise PlanRefused("tensors", "The plan names a dealer, but keeps no tensors to multiply.")
    roster = {key for entry in plan.roster for key in (entry.node_key, entry.owner_key)}
    names = {entry.name for entry in plan.roster}
    if plan.dealer.key in roster | {plan.scientist} or plan.dealer.name in names:
        raise PlanRefused(
            "tensors",
            f"The dealer '{plan.dealer.name}' is a domain of the roster or the scientist; it must "
            "be a party of its own.",
        )


def _check_kept(plan: Plan, step: Step, users: int) -> None:
    """What the bounds of `policies.sensitivity` rest on."""
    assert step.kept is not None
    whole = len(plan.roster)
    wrong = [
        (plan.aggregation != "smpc", "aggregation must be 'smpc'"),
        (plan.threshold != whole, f"threshold must be {whole}: a tensor is shared among all"),
        (step.ring != 64, "the ring must have 64 bits"),
        (step.sampling_rate != 1, "sampling_rate must be 1: a user may be in several tensors"),
        (isinstance(step.clipping, Adaptive), "the clip norm can't be adaptive"),
        (step.kept.users < users, f"its bound on users must be at least {users}, as declared here"),
    ]
    for broken, what in wrong:
        if broken:
            raise PlanRefused("tensors", f"Step {step.name!r} is kept as a tensor, so {what}.")
    try:
        sensitivity.noise_share(sensitivity.of_step(plan, step), plan, step)
    except sensitivity.TensorRefused as error:
        raise PlanRefused("tensors", f"Step {step.name!r}: {error}") from None


def _check_text(plan: Plan) -> None:
    """What an owner reads must be what is written."""
    texts = {"purpose": plan.purpose, "population note": plan.population_note}
    texts |= {f"source of step {step.name!r}": step.source for step in plan.steps}
    for what, text in texts.items():
        for character in text:
            if character not in "\n\t" and unicodedata.category(character) in _HIDDEN_CATEGORIES:
                raise PlanRefused(
                    "text",
                    f"The {what} has the character U+{ord(character):04X}, which can hide or "
                    "reorder text: remove it.",
                )


def _check_nodes(plan: Plan, limits: Limits) -> None:
    graphs = [step.graph for step in plan.steps]
    graphs += [graph for graph in (plan.memory, plan.scores) if graph is not None]
    total = sum(len(graph.nodes) for graph in graphs)
    if total > limits.plan_nodes:
        raise PlanRefused("size", f"{total} operations in the plan, at most {limits.plan_nodes}.")


def _check_step(
    step: Step,
    bounds: Bounds,
    limits: Limits,
    memory: int | None,
    memory_state: set[TensorSpec],
) -> Usage:
    where = f"Step {step.name!r}"
    if step.graph.state != step.state:
        raise PlanRefused("state", f"{where}: the graph reads another state than the step lists.")
    state_bytes = sum(_bytes(spec) for spec in step.state)
    if state_bytes > limits.state_bytes:
        raise PlanRefused(
            "state", f"{where}: the state has {state_bytes} bytes, at most {limits.state_bytes}."
        )
    if step.width > limits.width:
        raise PlanRefused(
            "outputs", f"{where}: {step.width} numbers leave, at most {limits.width}."
        )
    usage = _inspected(where, step.graph, bounds, limits, memory)
    if "memory" in step.graph.user and not memory_state <= set(step.state):
        raise PlanRefused(
            "memory",
            f"{where} reads the memory, which is computed from the step's state, but the memory "
            "graph reads other state tensors: let the step read them too.",
        )
    _check_outputs(step, usage)
    trained = step.outputs if step.kind == "gradient" else None
    _check_mapped(where, step.graph, bounds, trained, memory)
    return usage


def _check_outputs(step: Step, usage: Usage) -> None:
    where = f"Step {step.name!r}"
    if step.kind == "sum":
        if usage.outputs != step.outputs:
            raise PlanRefused(
                "outputs",
                f"{where}: the graph gives {_shown(usage.outputs)}, "
                f"the step announces {_shown(step.outputs)}.",
            )
    else:
        if usage.outputs != (TensorSpec(name="loss", shape=(), dtype="float32"),):
            raise PlanRefused(
                "outputs", f"{where}: expected one scalar loss, got {_shown(usage.outputs)}."
            )
        unknown = [spec.name for spec in step.outputs if spec not in step.state]
        if unknown:
            raise PlanRefused(
                "outputs", f"{where}: {unknown[0]!r} isn't a state tensor of this step."
            )
    if any(spec.dtype != "float32" for spec in step.outputs):
        raise PlanRefused("outputs", f"{where}: outputs must be float32.")


def _check_noise(plan: Plan, step: Step) -> None:
    if step.noise_multiplier == 0:
        if plan.public:
            return
        raise PlanRefused("noise", f"Step {step.name!r} has no noise and the data isn't public.")
    share = _noise_share(plan, step)
    if share < _MINIMUM_NOISE:
        needed = 2 ** math.ceil(math.log2(step.scale * _MINIMUM_NOISE / share))
        raise PlanRefused(
            "noise",
            f"Step {step.name!r}: one domain's noise is {share:.2g} integer units wide, at least "
            f"{_MINIMUM_NOISE:g} are needed: use scale {needed}.",
        )


def _check_ring(plan: Plan, step: Step, users: int) -> None:
    """The revealed sum must stay in the step's ring but with probability 2^-64."""
    largest = largest_total(plan, step, users)
    if largest >= 2.0 ** (step.ring - 1):
        raise PlanRefused(
            "ring",
            f"Step {step.name!r}: the total may reach {largest:.1e}, beyond 2^{step.ring - 1}: "
            "use a smaller scale" + (" or the 64-bit ring." if step.ring == 32 else "."),
        )
    if not 1 <= step.clip_norm * step.scale <= MAX_UNITS:
        raise PlanRefused(
            "ring",
            f"Step {step.name!r}: clip_norm * scale is {step.clip_norm * step.scale:g}, "
            f"expected 1 to {MAX_UNITS}.",
        )
    finest = min(parts_of(step.clipping, step.clip_norm))
    if finest * step.scale < 1:
        raise PlanRefused(
            "ring",
            f"Step {step.name!r}: a clip norm of {finest:g} is less than one integer unit, so "
            "nothing would ever be released of that part: use a larger scale.",
        )


def _check_ciphertexts(plan: Plan, step: Step) -> None:
    """The sum must decrypt to the exact integers, and pass in one message."""
    layout = layout_of(len(plan.roster), step.ring)
    if layout is None:
        raise PlanRefused(
            "ckks",
            f"{len(plan.roster)} domains can't be summed exactly under CKKS, at most "
            f"{MAX_DOMAINS}: use aggregation 'smpc'.",
        )
    needed = layout.ciphertexts(step.width)
    if needed > MAX_CIPHERTEXTS:
        most = MAX_CIPHERTEXTS * step.width // needed
        raise PlanRefused(
            "ckks",
            f"Step {step.name!r}: {step.width} numbers in the {step.ring}-bit ring take {needed} "
            f"ciphertexts, at most {MAX_CIPHERTEXTS}: release about {most} numbers at once"
            + (", use a smaller scale" if step.ring == 64 else "")
            + ", or aggregation 'smpc'.",
        )


def largest_total(plan: Plan, step: Step, users: int) -> float:
    """What no coordinate of a release exceeds, in integer units, but with probability 2^-64.

    |sum| <= domains * users * clip_norm * scale, and the noise of standard deviation s exceeds
    k s with probability below 2 exp(-k^2 / 2) in each of `width` coordinates.

    Args:
        users: declared maximum of users at one domain.
    """
    domains = len(plan.roster)
    signal = domains * users * math.floor(step.clip_norm * step.scale)
    spread = math.sqrt(domains) * (_noise_share(plan, step) if step.noise_multiplier else 0.0)
    k = math.sqrt(2 * (_WRAP_BITS * math.log(2) + math.log(2 * step.width)))
    return signal + k * spread


def _noise_share(plan: Plan, step: Step) -> float:
    return noise_share_sigma(
        step.noise_multiplier, step.clip_norm, step.scale, plan.noise_shares, 0
    )


def _check_memory(plan: Plan, bounds: Bounds, limits: Limits) -> tuple[int | None, float]:
    """The length of a user's memory, and the multiply-adds of computing one."""
    length, work = None, 0.0
    if plan.memory is not None:
        kept = [spec.count for spec in plan.memory.inputs if spec.name == "memory"]
        length = kept[0] if kept else None
        usage = _inspected("The memory graph", plan.memory, bounds, limits, length)
        work = usage.work
        length = _memory_length(usage.outputs, length)
        _check_mapped("The memory graph", plan.memory, bounds, None, length)
    if plan.scores is not None:
        usage = _inspected("The scores graph", plan.scores, bounds, limits, length)
        expected = TensorSpec(name="scores", shape=(bounds.items,), dtype="float32")
        if usage.outputs != (expected,) or plan.scores.user != ("memory",):
            raise PlanRefused(
                "scores",
                f"The scores graph reads {', '.join(plan.scores.user) or 'nothing'} of a user and "
                f"gives {_shown(usage.outputs)}; expected: reads memory, gives "
                f"{_shown([expected])}.",
            )
    return length, work


def _memory_length(outputs: tuple[TensorSpec, ...], kept: int | None) -> int:
    """The length of the one vector a memory graph gives, which the kept one must have too."""
    fits = len(outputs) == 1 and outputs[0].name == "memory" and len(outputs[0].shape) == 1
    if not fits or outputs[0].dtype != "float32":
        raise PlanRefused(
            "memory", f"The memory graph gives {_shown(outputs)}, expected one vector 'memory'."
        )
    if kept not in (None, outputs[0].count):
        raise PlanRefused(
            "memory",
            f"The memory graph reads a memory of {kept} numbers and gives {outputs[0].count}.",
        )
    return outputs[0].count


def _inspected(
    where: str, graph: Graph, bounds: Bounds, limits: Limits, memory: int | None = None
) -> Usage:
    try:
        return _Inspection(graph, bounds, limits, memory).run()
    except PlanRefused as refused:
        raise PlanRefused(refused.rule, f"{where}: {refused}") from None


def _check_mapped(
    where: str,
    graph: Graph,
    bounds: Bounds,
    trained: tuple[TensorSpec, ...] | None,
    memory: int | None,
) -> None:
    """Map the graph (or, with `trained`, its gradient) over two fake users, as the engine will.

    What fails then would fail for every user, whatever her data; what doesn't, never fails.
    """

    def contribution(state: dict[str, Tensor], user: dict[str, Tensor]) -> dict[str, Tensor]:
        if trained is None:
            return graph.run(state | user)
        chosen = {spec.name: state[spec.name] for spec in trained}
        return grad(lambda part: graph.run(state | part | user)["loss"])(chosen)

    specs = user_specs(bounds, memory)
    try:
        with FakeTensorMode(allow_non_fake_inputs=True):
            state = {spec.name: spec.empty() for spec in graph.state}
            users = {name: specs[name].empty(users=2) for name in graph.user}
            if users:
                vmap(contribution, in_dims=(None, 0))(state, users)
    except (GraphFailed, RuntimeError) as error:
        raise PlanRefused(
            "mapping", f"{where} can't be mapped over users: {str(error)[:200]}"
        ) from None
    if not graph.user:
        raise PlanRefused("mapping", f"{where} reads nothing of a user.")


class _Inspection:
    """One pass over a graph on fake tensors, with the range of every integer tensor."""

    def __init__(
        self, graph: Graph, bounds: Bounds, limits: Limits, memory: int | None = None
    ) -> None:
        self._graph = graph
        self._limits = limits
        self._specs = user_specs(bounds, memory)
        self._indices: Range = (0, bounds.items - 1)
        self._tensors: dict[str, Any] = {}
        self._ranges: dict[str, Range] = {}
        self._bytes = 0
        self._work = 0.0

    def run(self) -> Usage:
        self._check_size()
        self._check_names()
        with FakeTensorMode(allow_non_fake_inputs=True):
            self._define_inputs()
            for node in self._graph.nodes:
                self._visit_safely(node)
        self._check_used()
        outputs = [_spec(name, self._tensors[ref]) for name, ref in self._graph.outputs]
        return Usage(self._bytes, self._work, tuple(outputs))

    def _check_size(self) -> None:
        graph, limits = self._graph, self._limits
        constants = sum(constant.spec.count for constant in graph.constants)
        if len(graph.nodes) > limits.nodes:
            raise PlanRefused("size", f"{len(graph.nodes)} operations, at most {limits.nodes}.")
        if constants > limits.constants:
            raise PlanRefused(
                "constants",
                f"{constants} constant numbers, at most {limits.constants}: pass large tensors as "
                "state.",
            )

    def _check_names(self) -> None:
        """A name that says nothing can't mislead, and equal graphs have equal text."""
        graph = self._graph
        written = [constant.spec.name for constant in graph.constants]
        if written != [f"c{index}" for index in range(len(written))]:
            raise PlanRefused("names", "constants must be named c0, c1, ... in their order.")
        if any(node.name != f"n{index}" for index, node in enumerate(graph.nodes)):
            raise PlanRefused("names", "operations must be named n0, n1, ... in their order.")

    def _check_used(self) -> None:
        """No decoys: everything that is written matters for what leaves."""
        graph = self._graph
        used = {ref for _, ref in graph.outputs}
        used.update(name for node in graph.nodes for name in node.references())
        for name in [spec.name for spec in graph.inputs] + list(self._tensors):
            if name not in used:
                raise PlanRefused("unused", f"{name} is used by nothing: leave it out.")

    def _define_inputs(self) -> None:
        for spec in self._graph.inputs:
            if spec.name in USER_TENSORS and self._specs.get(spec.name) != spec:
                raise PlanRefused(
                    "inputs",
                    f"the input {spec.name!r} has shape {list(spec.shape)} and dtype {spec.dtype}, "
                    "which no user of this data set has.",
                )
            self._tensors[spec.name] = spec.empty()
            if spec.name in ("items", "target", "negatives"):
                self._ranges[spec.name] = self._indices
        for constant in self._graph.constants:
            self._tensors[constant.spec.name] = constant.spec.empty()
            if constant.spec.dtype == "int64":
                numbers = [int(value) for value in constant.data]
                self._ranges[constant.spec.name] = (min(numbers), max(numbers))

    def _visit_safely(self, node: Node) -> None:
        """A check that can't be made is a refusal: hostile arguments may fit no check at all."""
        try:
            self._visit(node)
        except PlanRefused:
            raise
        except Exception as error:
            raise PlanRefused(
                "shape", f"{node.name} = {node.op} can't be checked: {type(error).__name__}."
            ) from None

    def _visit(self, node: Node) -> None:
        self._check_arguments(node)
        args = [self._value(value) for value in node.args]
        kwargs = {key: self._value(value) for key, value in node.kwargs.items()}
        self._check_meaning(node, args)
        try:
            result = operation(node.op)(*args, **kwargs)
        except OperationRefused as refused:
            raise PlanRefused("operation", f"{node.name}: {refused}") from None
        except Exception as error:
            raise PlanRefused(
                "shape", f"{node.name} = {node.op} doesn't fit its arguments: {str(error)[:200]}"
            ) from None
        self._count(node, args, result)
        self._tensors[node.name] = result
        if isinstance(result, Tensor):
            _spec("result", result, f"{node.name} = {node.op}")
        self._ranges[node.name] = self._range(node, args, result)

    def _value(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self._value(item) for item in value]
        if not isinstance(value, dict):
            return value
        [(tag, content)] = value.items()
        if tag == "ref":
            return self._tensors[content]
        return DTYPES[content] if tag == "dtype" else float(content)

    def _check_arguments(self, node: Node) -> None:
        if node.op not in ALLOWED:
            raise PlanRefused(
                "operation", f"{node.name}: the operation {node.op!r} isn't on the allow-list."
            )
        unknown = sorted(set(node.kwargs) - _KEYWORDS)
        if unknown:
            raise PlanRefused("operation", f"{node.name}: the argument {unknown[0]!r} isn't used.")
        lists = [value for value in node.args if isinstance(value, list)]
        if len(node.args) > 16 or any(len(value) > self._limits.parts for value in lists):
            raise PlanRefused("size", f"{node.name}: too many arguments.")

    def _check_meaning(self, node: Node, args: list[Any]) -> None:
        name = node.op.split(".")[1] if "." in node.op else node.op
        if node.kwargs.get("check_errors"):
            raise PlanRefused("operation", f"{node.name}: check_errors would depend on the data.")
        if name in ("split", "unbind"):
            self._check_parts(node, args)
        if name in _INDEXED:
            self._check_index(node, name, args)
        if name in ("floor_divide", "remainder") or node.op.endswith("_mode"):
            self._check_divisor(node, args)

    def _check_parts(self, node: Node, args: list[Any]) -> None:
        dim = _at(args, 2 if "split" in node.op else 1, 0)
        each = args[1] if "split" in node.op else 1
        if _is_tensor(args[0]) and type(dim) is int and type(each) is int and args[0].dim():
            size = args[0].shape[dim] if -args[0].dim() <= dim < args[0].dim() else 0
            if size <= max(each, 1) * self._limits.parts:
                return
        raise PlanRefused("size", f"{node.name}: makes more than {self._limits.parts} tensors.")

    def _check_index(self, node: Node, name: str, args: list[Any]) -> None:
        """Every index must be provably inside the dimension it indexes."""
        source = args[0]
        if name == "index_put" and not (len(args) == 4 and args[3] is True):
            raise PlanRefused(
                "operation", f"{node.name}: index_put must accumulate, or equal indices compete."
            )
        if name in ("index", "index_put"):
            for axis, (part, value) in enumerate(zip(node.args[1], args[1], strict=True)):
                if value is not None:
                    self._require_inside(node, part, value, source, axis, negative=True)
            return
        position, dim = _INDEXED[name]
        if name == "embedding" and any(_at(args, i, False) for i in (3, 4)):
            raise PlanRefused("operation", f"{node.name}: sparse or frequency-scaled embedding.")
        dim = args[1] if dim is None else dim
        if len(args) <= position:
            raise PlanRefused("shape", f"{node.name} = {node.op} has too few arguments.")
        self._require_inside(node, node.args[position], args[position], source, dim)

    def _require_inside(
        self, node: Node, part: Any, index: Any, source: Any, dim: Any, negative: bool = False
    ) -> None:
        if not (_is_tensor(index) and _is_tensor(source) and type(dim) is int):
            raise PlanRefused("index", f"{node.name} = {node.op}: an index must be a tensor.")
        if index.dtype != torch.int64:
            raise PlanRefused("index", f"{node.name} = {node.op}: an index must be int64.")
        size = 1 if source.dim() == 0 and dim in (0, -1) else 0
        if -source.dim() <= dim < source.dim():
            size = source.shape[dim]
        low, high = self._ranges.get(part["ref"], _INT64)
        if low < (-size if negative else 0) or high >= size:
            raise PlanRefused(
                "index",
                f"{node.name} = {node.op}: {part['ref']} isn't provably in 0..{size - 1}. Index "
                f"with items, target or negatives, or write index.clamp(0, {size - 1}).",
            )

    def _check_divisor(self, node: Node, args: list[Any]) -> None:
        """A crash would tell something of the data: x / 0 is an error, -2^63 / -1 a fatal one."""
        if any(_is_tensor(value) and value.is_floating_point() for value in args[:2]):
            return
        if len(args) > 1 and isinstance(args[1], float):
            return
        low, _ = self._range_of(node.args[1]) if len(node.args) > 1 else _INT64
        if low < 1:
            raise PlanRefused(
                "division",
                f"{node.name} = {node.op}: the divisor may be below 1: clamp it to at least 1.",
            )

    def _count(self, node: Node, args: list[Any], result: Any) -> None:
        results = [value for value in _flat(result) if _is_tensor(value)]
        inputs = [value for value in _flat(args) if _is_tensor(value)]
        if node.op != "getitem":
            self._bytes += sum(value.numel() * value.element_size() for value in results)
        self._work += _work(node.op, inputs, results)
        if self._bytes > self._limits.user_bytes:
            raise PlanRefused(
                "memory",
                f"one user needs over {self._limits.user_bytes >> 20} MiB (reached at "
                f"{node.name} = {node.op}): make the intermediate tensors smaller.",
            )

    def _range(self, node: Node, args: list[Any], result: Any) -> Range:
        """Bounds of an integer result (interval arithmetic); all of int64 where it isn't known."""
        if isinstance(result, Tensor):
            if result.dtype == torch.bool:
                return (0, 1)
            if result.dtype != torch.int64:
                return _INT64
        rule = _RANGES.get(node.op.split(".")[1] if "." in node.op else node.op)
        if rule is None:
            return _INT64
        try:
            ranges = [self._range_of(value) for value in node.args]
            low, high = rule(_Integers(args, node.kwargs, ranges, result))
        except (IndexError, TypeError, ValueError):
            return _INT64
        return (low, high) if _INT64[0] <= low and high <= _INT64[1] else _INT64

    def _range_of(self, value: Any) -> Range:
        """Range of an argument; a float tensor's or anything unknown is all of int64."""
        if type(value) is int:
            return (value, value)
        if isinstance(value, list):
            return _union([self._range_of(item) for item in value]) if value else _INT64
        if isinstance(value, dict) and "ref" in value:
            tensor = self._tensors[value["ref"]]
            if isinstance(tensor, Tensor) and tensor.dtype == torch.bool:
                return (0, 1)
            return self._ranges.get(value["ref"], _INT64)
        return _INT64


@dataclass(frozen=True)
class _Integers:
    """What a range rule may look at: arguments, and the ranges of the integer ones."""

    args: list[Any]
    kwargs: dict[str, Any]
    ranges: list[Range]
    result: Any


def _union(ranges: list[Range]) -> Range:
    return min(low for low, _ in ranges), max(high for _, high in ranges)


def _first(known: _Integers) -> Range:
    return known.ranges[0]


def _either(*positions: int) -> Any:
    return lambda known: _union([known.ranges[position] for position in positions])


def _with_zero(known: _Integers) -> Range:
    return _union([known.ranges[0], (0, 0)])


def _padded(known: _Integers) -> Range:
    fill = known.ranges[2] if len(known.args) > 2 else (0, 0)
    return _union([known.ranges[0], fill])


def _sum_of(sign: int) -> Any:
    def rule(known: _Integers) -> Range:
        (a, b), (c, d) = known.ranges[0], known.ranges[1]
        alpha = _whole(known.kwargs.get("alpha", _at(known.args, 2, 1))) * sign
        scaled = sorted((alpha * c, alpha * d))
        return a + scaled[0], b + scaled[1]

    return rule


def _product(known: _Integers) -> Range:
    (a, b), (c, d) = known.ranges[0], known.ranges[1]
    corners = [a * c, a * d, b * c, b * d]
    return min(corners), max(corners)


def _negated(known: _Integers) -> Range:
    low, high = known.ranges[0]
    return -high, -low


def _absolute(known: _Integers) -> Range:
    low, high = known.ranges[0]
    if low == _INT64[0]:
        raise ValueError  # |-2^63| isn't an int64
    return max(low, -high, 0), max(-low, high)


def _clamped(known: _Integers) -> Range:
    low, high = known.ranges[0]
    floor, ceiling = _at(known.args, 1, None), _at(known.args, 2, None)
    # clamp(x, min, max) is min(max(x, min), max), also where min > max.
    if floor is not None:
        low, high = max(low, _whole(floor)), max(high, _whole(floor))
    if ceiling is not None:
        low, high = min(low, _whole(ceiling)), min(high, _whole(ceiling))
    return low, high


def _at_least(known: _Integers) -> Range:
    (a, b), (c, d) = known.ranges[0], known.ranges[1]
    return max(a, c), max(b, d)


def _at_most(known: _Integers) -> Range:
    (a, b), (c, d) = known.ranges[0], known.ranges[1]
    return min(a, c), min(b, d)


def _remainder(known: _Integers) -> Range:
    divisor = _whole(known.args[1])
    return (0, divisor - 1) if divisor > 0 else (divisor + 1, 0)


def _quotient(known: _Integers) -> Range:
    divisor = _whole(known.args[1])
    if divisor < 1:
        raise ValueError
    low, high = known.ranges[0]
    return min(low // divisor, 0), max(high // divisor, 0)


def _added_up(known: _Integers) -> Range:
    low, high = known.ranges[0]
    count = known.args[0].numel()
    return min(count * low, low, 0), max(count * high, high, 0)


def _written_out(known: _Integers) -> Range:
    start, end, _ = [*known.args, None, None][:3]
    numbers = [0, _whole(start)] if end is None else [_whole(start), _whole(end)]
    return min(numbers), max(numbers)


def _constant(value: int) -> Any:
    return lambda known: (value, value)


def _filled(known: _Integers) -> Range:
    value = known.args[0] if len(known.args) == 1 else known.args[-1]
    return (_whole(value), _whole(value))


def _whole(value: Any) -> int:
    if type(value) is not int:
        raise TypeError
    return value


# Position of the index among the arguments, and its dimension (None: the second argument).
_INDEXED: dict[str, tuple[int, int | None]] = {
    "index": (1, None),
    "index_put": (1, None),
    "gather": (2, None),
    "index_select": (2, None),
    "embedding": (1, 0),
    "scatter_add": (2, None),
    "scatter": (2, None),
    "index_add": (2, None),
}
_KEEPS_RANGE = (
    "reshape permute transpose t unsqueeze squeeze expand slice select flip repeat diagonal alias "
    "clone detach amax amin max min index gather index_select embedding getitem split unbind "
    "_to_copy cat stack"
)
_RANGES: dict[str, Any] = dict.fromkeys(_KEEPS_RANGE.split(), _first) | {
    "tril": _with_zero,
    "triu": _with_zero,
    "diag_embed": _with_zero,
    "constant_pad_nd": _padded,
    "copy": _either(1),
    "fill": _either(1),
    "select_scatter": _either(0, 1),
    "slice_scatter": _either(0, 1),
    "scatter": _either(0, 3),
    "where": _either(1, 2),
    "masked_fill": _either(0, 2),
    "maximum": _at_least,
    "clamp_min": _at_least,
    "minimum": _at_most,
    "clamp_max": _at_most,
    "clamp": _clamped,
    "add": _sum_of(1),
    "sub": _sum_of(-1),
    "mul": _product,
    "neg": _negated,
    "abs": _absolute,
    "remainder": _remainder,
    "floor_divide": _quotient,
    "sum": _added_up,
    "cumsum": _added_up,
    "arange": _written_out,
    "zeros": _constant(0),
    "zeros_like": _constant(0),
    "new_zeros": _constant(0),
    "ones": _constant(1),
    "ones_like": _constant(1),
    "new_ones": _constant(1),
    "full": _filled,
    "full_like": _filled,
    "new_full": _filled,
    "scalar_tensor": _filled,
    "eye": lambda known: (0, 1),
}
_PRODUCTS = frozenset(["mm", "mv", "dot", "bmm", "addmm", "addmv", "baddbmm"])
_FACTORISATIONS = frozenset(
    [
        "_linalg_solve_ex",
        "linalg_cholesky_ex",
        "linalg_inv_ex",
        "cholesky_solve",
        "linalg_solve_triangular",
    ]
)


def _work(op: str, inputs: list[Tensor], results: list[Tensor]) -> float:
    name = op.split(".")[1] if "." in op else op
    touched = float(sum(value.numel() for value in (*inputs, *results)))
    sides = [max(value.shape[-1:], default=1) for value in inputs]
    if name in _PRODUCTS and inputs:
        left = inputs[-2] if len(inputs) > 1 else inputs[-1]
        return touched + float(results[0].numel()) * max(left.shape[-1:], default=1)
    return touched * max(sides, default=1) if name in _FACTORISATIONS else touched


def _spec(name: str, tensor: Any, where: str = "an output") -> TensorSpec:
    try:
        return TensorSpec.of(name, tensor)
    except (ValueError, AttributeError):
        dtype = getattr(tensor, "dtype", type(tensor).__name__)
        shape = list(getattr(tensor, "shape", []))
        raise PlanRefused(
            "dtype",
            f"{where} is {dtype}{shape}; graphs have {', '.join(DTYPES)} tensors of at least one "
            "element.",
        ) from None


def _bytes(spec: TensorSpec) -> int:
    return spec.count * DTYPES[spec.dtype].itemsize


def _shown(specs: Iterable[TensorSpec]) -> str:
    return ", ".join(f"{spec.name} {spec.dtype}{list(spec.shape)}" for spec in specs) or "nothing"


def _is_tensor(value: Any) -> bool:
    return isinstance(value, Tensor)


def _at(args: list[Any], position: int, default: Any) -> Any:
    return args[position] if len(args) > position else default


def _flat(value: Any) -> list[Any]:
    if isinstance(value, list | tuple):
        return [leaf for item in value for leaf in _flat(item)]
    return [value]
