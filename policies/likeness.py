"""What two plans have in common: hashes of meaning, for rules, envelopes and alerts.

Names of nodes and the order of independent ones don't count, so rewriting a graph without changing
what it computes doesn't change them.
"""

from policies.canonical import canonical, sha256_hex
from policies.changes import meaning
from policies.graph import Graph
from policies.plan import Plan, Step

LABELS = ("name", "purpose", "population_note")
"""Fields of a plan that change nothing of what runs; where a seed or a date is written."""


def query_of(step: Step) -> str:
    """SHA-256 of what one release of a step computes for a user: its graph and what leaves.

    Clip norm, noise and number of releases don't count: asking again with other noise is the same
    query.
    """
    return _hash([step.kind, _graph(step.graph), [[s.name, list(s.shape)] for s in step.released]])


def model_of(plan: Plan) -> str:
    """SHA-256 of everything a plan computes and how it is summed, whatever its numbers."""
    kept = [None if graph is None else _graph(graph) for graph in (plan.memory, plan.scores)]
    found: list[object] = [[[step.name, query_of(step)] for step in plan.steps], kept]
    if any(step.kept is not None for step in plan.steps):
        dealer = None if plan.dealer is None else plan.dealer.key
        found.append([[step.kept is not None for step in plan.steps], dealer])
        if plan.comparisons is not None:
            found.append(plan.comparisons)
    return _hash(found if plan.aggregation == "smpc" else [*found, plan.aggregation])


def likeness_of(plan: Plan) -> str:
    """SHA-256 of a plan without its labels: plans that are identical but for them share it."""
    written = plan.model_dump(mode="json")
    return _hash({key: value for key, value in written.items() if key not in LABELS})


def roster_of(plan: Plan) -> str:
    """SHA-256 of the partners and their keys."""
    return _hash(plan.model_dump(mode="json")["roster"])


def operations_of(plan: Plan) -> frozenset[str]:
    """Every operation that any graph of the plan uses."""
    graphs = [*(step.graph for step in plan.steps), plan.memory, plan.scores]
    return frozenset(node.op for graph in graphs if graph is not None for node in graph.nodes)


def _graph(graph: Graph) -> list[object]:
    return list(meaning(graph))


def _hash(value: object) -> str:
    return sha256_hex(canonical(value))
