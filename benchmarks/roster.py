"""Rounds of many nodes in processes of their own, while one of them stops or dies in the middle.

    OMP_NUM_THREADS=1 python -m benchmarks.roster [--domains 16] [--size 100000]

tau is N - 1, so that one domain may drop. A few rounds are undisturbed; then, for each step that is
asked for, a node stops (SIGSTOP) before it can answer it and goes on after the round; then it is
killed (SIGKILL) and started again. Each total is compared with the exact sum over the domains
that are in it, and its noise with what these add; in the end every kept round is recomputed. Then
two nodes stop, which must end the attempt and name one, and the run is taken up again. To reach:
whoever stopped is named within 2 s of the plan's deadline. A node and its engine take 0.9 GB.
"""

import argparse
import contextlib
import itertools
import json
import os
import signal
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import psutil

import coterie as ct
from benchmarks.round import WARM_UP, WIDTH, approved, cpu_of_all, moved, partners
from coterie.home import Home
from coterie.partners import start_domain
from coterie.processes import running
from network.client import NodeClient
from network.rounds import verify_rounds

STEPS = ("share", "reveal", "confirm", "unmask")
"""The first one is asked for with the `reveal` of the round before."""
QUIET, DEADLINE_S = 6, 5
USERS, ITEMS, EACH = 900, 30, 5


@dataclass
class Watched:
    """What happens to a roster's nodes, and what its rounds opened.

    Attributes:
        totals: of each release, the table and the noise that was accounted.
        acts: what to do before a node is asked a step of a release, by (node, release, step).
    """

    folder: Path
    totals: list[tuple[Any, float]] = field(default_factory=list)
    acts: dict[tuple[str, int, str], Callable[[], object]] = field(default_factory=dict)
    stopped: dict[str, float] = field(default_factory=dict)

    def update(self, state: Any, total: Any, noise: float) -> Any:
        self.totals.append((total["table"].double(), noise))
        return moved(state, total, noise)

    def pid(self, name: str) -> int:
        return running(Home(self.folder).domain(name).pid_file) or 0

    def stop(self, name: str) -> None:
        os.kill(self.pid(name), signal.SIGSTOP)
        self.stopped[name] = time.monotonic()

    def go_on(self) -> None:
        for name in self.stopped:
            os.kill(self.pid(name), signal.SIGCONT)
        self.stopped.clear()

    def kill(self, name: str) -> None:
        os.kill(pid := self.pid(name), signal.SIGKILL)
        os.waitpid(pid, 0)

    @contextlib.contextmanager
    def over(self, nodes: dict[str, NodeClient]) -> Iterator[None]:
        """While this lasts, what is to be done before a call is done before it."""
        with contextlib.ExitStack() as stack:
            for name, node in nodes.items():
                stack.enter_context(patch.object(node, "stream", self._stream(name, node.stream)))
            try:
                yield
            finally:
                self.go_on()

    def _stream(self, name: str, ask: Callable[..., Any]) -> Callable[..., Any]:
        def stream(method: str, *arguments: Any, **more: Any) -> Any:
            self.acts.pop((name, more.get("release", -1), method), lambda: None)()
            return ask(method, *arguments, **more)

        return stream


def one_may_drop(federation: ct.Federation, watched: Watched, size: int, releases: int) -> ct.Plan:
    """A plan that any N - 1 domains carry through."""
    return approved(
        federation, watched.folder, size, releases, watched.update,
        threshold=len(federation.nodes) - 1, deadline_s=DEADLINE_S,
    )  # fmt: skip


def rounds(federation: ct.Federation, folder: Path, size: int) -> dict[str, Any]:
    """All rounds of one plan; gives what they took, and what was late or wrong in them."""
    watched, names = Watched(folder), sorted(federation.nodes)
    victim, releases = names[len(names) // 2], QUIET + 2 * len(STEPS) + 3
    plan = one_may_drop(federation, watched, size, releases)
    for i, step in enumerate(STEPS):
        watched.acts[victim, QUIET + 2 * i, step] = partial(watched.stop, victim)
    watched.acts[victim, releases - 3, "reveal"] = partial(watched.kill, victim)
    seen: list[tuple[float, float, float]] = []
    late: dict[str, float] = {}

    def progress(release: ct.Progress) -> None:
        ended, spent = time.monotonic(), cpu_of_all()
        if victim in watched.stopped and victim in release.left_out:
            late[f"{release.release}"] = round(ended - watched.stopped[victim] - DEADLINE_S, 2)
            watched.go_on()
        if release.release == releases - 3:
            start_domain(Home(folder), victim, None)
        print(json.dumps({"release": release.release, "seconds": dict(release.seconds),
                          "left_out": dict(release.left_out)}))  # fmt: skip
        seen.append((ended, spent, time.monotonic()))

    with watched.over(federation.nodes):
        run = federation.train(plan, folder / "run", progress)
    steady = seen[WARM_UP - 1 : QUIET - 1]
    pairs = list(itertools.pairwise(steady))
    checked = verify_rounds(federation.bind(plan), run.folder)
    return {
        "wall_s": round(statistics.median(b[0] - a[2] for a, b in pairs), 3),
        "cpu_s": round(statistics.median(b[1] - a[1] for a, b in pairs), 3),
        "phases": dict(run.history[QUIET - 2].seconds), "late_s": late,
        "recomputed": len(checked),
        "domains_in_totals": [found(federation.bind(plan), *each) for each in watched.totals],
    }  # fmt: skip


def found(plan: Any, total: Any, noise: float) -> tuple[float, float]:
    """How many domains' users are in a total, and its noise over what was accounted."""
    value = USERS * EACH / ITEMS * plan.steps[0].clip_norm / (EACH * WIDTH) ** 0.5
    domains = float(total[:ITEMS].mean()) / value
    return round(domains, 2), round(float(total[ITEMS:].std()) / noise, 3)


def two_stop(federation: ct.Federation, folder: Path, size: int) -> dict[str, Any]:
    """Two nodes stop before they reveal: the attempt ends without a total, and can be repeated."""
    watched, names = Watched(folder), sorted(federation.nodes)
    plan = one_may_drop(federation, watched, size, 2)
    for name in names[1:3]:
        watched.acts[name, 1, "reveal"] = partial(watched.stop, name)
    with watched.over(federation.nodes):
        try:
            federation.train(plan, folder / "two")
        except ct.RunInterrupted as error:
            late = time.monotonic() - min(watched.stopped.values()) - DEADLINE_S
            said = str(error)
        else:
            raise SystemExit("Two silent nodes weren't missed.")
    if not any(name in said for name in names[1:3]):
        raise SystemExit(f"None of the two is named: {said}")
    run = federation.train(plan, folder / "two")
    return {
        "two_stop_late_s": round(late, 2),
        "two_stop": said.splitlines()[0],
        "repeated_as_attempt": run.history[-1].attempt,
        "in_total": found(federation.bind(plan), *watched.totals[-1]),
    }


def memory_gb(folder: Path, names: list[str]) -> float:
    """Of all nodes and their engines, shared pages once."""
    nodes = [psutil.Process(running(Home(folder).domain(name).pid_file) or 0) for name in names]
    everything = [p for node in nodes for p in (node, *node.children(recursive=True))]
    return round(sum(p.memory_full_info().pss for p in everything) / 1e9, 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--domains", type=int, default=16)
    parser.add_argument("--size", type=int, default=100_000)
    options = parser.parse_args()
    names = [f"domain-{i:02d}" for i in range(options.domains)]
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "home"
        with partners(folder, names, USERS) as federation:
            started = round(time.monotonic() - began, 1)
            print(json.dumps({"domains": len(names), "started_s": started}))
            print(json.dumps(rounds(federation, folder, options.size)))
            print(json.dumps({"memory_gb": memory_gb(folder, names)}))
            print(json.dumps(two_stop(federation, folder, options.size)))


if __name__ == "__main__":
    main()
