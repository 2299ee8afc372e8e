"""Plans are examined in a process of their own, locked down as an engine is.

To check a plan, PyTorch works on what a stranger wrote, if only on its shapes and on a made-up
user. Should it crash, hang or want too much memory there, the plan is refused and the node goes on.
The process is forked for one plan, gets no data, and ends with its answer.
"""

import os
import threading
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from domains.confinement import confine
from domains.deadline import Deadline, DeadlinePassed
from domains.frames import read_frame, write_frame
from domains.launcher import EngineProcess, LauncherFailed, launch
from policies import admission
from policies.graph import Graph, Node, TensorSpec
from policies.mapping import check_mapped, check_runs
from policies.plan import Plan
from policies.refusals import PlanRefused
from policies.users import Bounds

LONGEST_S = 60.0
_MEMORY_LIMIT = 6 * 2**30
_AT_ONCE = threading.BoundedSemaphore(2)


class ExaminationFailed(RuntimeError):
    """No process to examine a plan in could be started; says nothing of the plan."""


def admit(plan: Plan, bounds: Bounds, public: bool) -> None:
    """`policies.admission.admit`, then each graph tried on a made-up user, apart from the node.

    Raises:
        PlanRefused: as there; rule "examination" if a graph fails, or its check crashes or lasts
            longer than `LONGEST_S`.
        ExaminationFailed: try again.
    """
    question = {"plan": plan.to_json(), "bounds": asdict(bounds), "public": public}
    with _AT_ONCE, open(os.devnull, "wb") as log:
        try:
            process = launch(None, log.fileno())
        except LauncherFailed as error:
            raise ExaminationFailed(str(error)) from None
        answer = _asked(process, question)
    if "rule" in answer:
        raise PlanRefused(answer["rule"], answer["message"])


def _asked(process: EngineProcess, question: Mapping[str, Any]) -> dict[str, Any]:
    try:
        with Deadline(LONGEST_S, process.kill):
            write_frame(process.questions, question, {})
            return read_frame(process.answers)[0]
    except DeadlinePassed:
        why = (
            f"checking it took longer than {LONGEST_S:g} s: use fewer operations or smaller tensors"
        )
    except (OSError, EOFError, ValueError):
        why = (
            "the process that checked it ended by itself: an operation crashes on its arguments, "
            "or needs too much memory. Run each graph on made-up users, and write the operation "
            "that fails in another way"
        )
    finally:
        process.end()
    raise PlanRefused("examination", f"The plan can't be checked: {why}.")


def serve() -> None:
    """Lock this process down, answer the one question on standard input, and end."""
    output, source = os.fdopen(os.dup(1), "wb"), os.fdopen(os.dup(0), "rb")
    os.dup2(2, 1)
    confine(_MEMORY_LIMIT, int(LONGEST_S))
    question, _ = read_frame(source)
    write_frame(output, _answer(question), {})


def _answer(question: Mapping[str, Any]) -> dict[str, str]:
    plan, bounds = Plan.from_json(question["plan"]), Bounds(**question["bounds"])
    try:
        admission.admit(plan, bounds, question["public"])
        check_runs(plan, bounds)
    except PlanRefused as refused:
        return {"rule": refused.rule, "message": str(refused)}
    return {}


def prepare() -> None:
    """Examine a first plan here, since PyTorch imports much at the first one."""
    mask = TensorSpec(name="mask", shape=(2,), dtype="float32")
    table = TensorSpec(name="w", shape=(2,), dtype="float32")
    nodes = (
        Node(name="n0", op="aten.mul.Tensor", args=({"ref": "w"}, {"ref": "mask"})),
        Node(name="n1", op="aten.sum.default", args=({"ref": "n0"},)),
    )
    graph = Graph(inputs=(table, mask), nodes=nodes, outputs=(("loss", "n1"),))
    bounds = Bounds(2, 2, 2)
    check_mapped("", graph, bounds, (table,), None, admission.inspect(graph, bounds))
