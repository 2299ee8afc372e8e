"""Why admission refuses a plan, and how large a plan may be."""

from dataclasses import dataclass


class PlanRefused(ValueError):
    """A plan breaks a rule of admission.

    Attributes:
        rule: short name of the rule, for ledgers and tables.
        node: of a graph, at which it was found; empty: not at one.
    """

    def __init__(self, rule: str, message: str) -> None:
        super().__init__(message)
        self.rule = rule
        self.node = ""


@dataclass(frozen=True)
class Limits:
    """How large a plan may be on one node.

    Attributes:
        nodes: operations in one graph.
        plan_nodes: operations in all graphs of a plan.
        constants: numbers written out in one graph.
        parts: results or arguments of one operation.
        user_bytes: all intermediate tensors of one user together.
        memory_bytes: the private memories of the declared number of users.
        work: multiply-adds of the whole plan over the declared number of users.
        state_bytes: public tensors of one step.
        width: integers in one release.
        releases: of the whole plan, spare attempts included.
    """

    nodes: int = 5_000
    plan_nodes: int = 20_000
    constants: int = 16_384
    parts: int = 1_024
    user_bytes: int = 512 * 2**20
    memory_bytes: int = 2**30
    work: float = 1e15
    state_bytes: int = 2**29
    width: int = 2**27
    releases: int = 100_000
