"""A whole round of three nodes beside the parts it can't do without, in the same run.

    OMP_NUM_THREADS=1 python -m benchmarks.round [--size 1000000] [--releases 12]

Each node is a process of its own on loopback; local work is trivial (a table of which each of a few
users touches some rows); the sum is secure and noised. What is timed alone, in three processes that
serve nothing else: the noise, the transport (the state down and the ring elements up as signed
octet streams with sealed answers, as a node takes and gives them), the masks and their removal.
Wall is per release, as medians after two to warm up, without what measuring takes; CPU is that of
all processes, this one included. Memory is the peak of the coordinator's process and
of a node's while a sum is made, beyond what they held before and the vector in 64-bit words.
"""

import argparse
import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pandas as pd
import requests
import torch
from nacl.signing import SigningKey
from numpy.typing import NDArray
from starlette.responses import Response

import coterie as ct
from benchmarks.peak import PeakMemory
from coterie.commands.plan import federation_of
from coterie.home import Home
from coterie.partners import (
    add_data,
    card_of,
    create_domain,
    invite,
    open_owner,
    pin_peer,
    start_domain,
    stop_domain,
)
from coterie.processes import free_ports, running
from network.answers import ASKED, Seal, ask
from network.calls import send_parts
from network.parts import Content, Parts
from network.rounds import carried_through
from network.smpc.masks import Mask, apply
from network.smpc.messages import PART_BYTES, Digested, OctetParts
from network.smpc.ring import to_ring, word
from network.streams import answer_parts, call_parts, read_answer, read_head, write_answer
from policies.mechanism import add_noise_share
from policies.noise import SecureRandom
from policies.plan import Step

NAMES = ("east", "north", "south")
WARM_UP = 2
WIDTH = 64
_PARTS_KEY = bytes(32)


@contextlib.contextmanager
def partners(folder: Path, names: Sequence[str] = NAMES, users: int = 8) -> Iterator[ct.Federation]:
    """Running nodes with a handful of users each, and the scientist's handle on them."""
    home = Home(folder)
    folder.mkdir(parents=True)
    catalogue = folder / "catalogue.txt"
    catalogue.write_text("".join(f"item-{i}\n" for i in range(30)))
    rows = folder / "rows.csv"
    pairs = [(f"u{user}", f"item-{(7 * user + i) % 30}") for user in range(users) for i in range(5)]
    pd.DataFrame(pairs, columns=["user", "item"]).to_csv(rows, index=False)
    try:
        for name, port in zip(names, free_ports(len(names)), strict=True):
            create_domain(home, name, "127.0.0.1", port)
            add_data(
                home.domain(name), file=rows, catalogue=catalogue, dataset="interactions",
                population=name, users=max(100, users), interactions_per_user=8, holdout=None,
                epsilon=10.0, public=False,
            )  # fmt: skip
        cards = {name: card_of(home.domain(name)) for name in names}
        for name in names:
            for peer, card in cards.items():
                if peer != name:
                    pin_peer(home.domain(name), peer, card.node_key, card.owner_key)
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(lambda name: start_domain(home, name, None), names))
        for name in names:
            invite(home, name, "ada@university.example", "scientist", home.accounts)
        yield federation_of(home, None)
    finally:
        with ThreadPoolExecutor() as pool:
            list(pool.map(lambda name: stop_domain(home, name), names))


def silenced(federation: ct.Federation, folder: Path) -> float:
    """How long after the plan's deadline a node that stopped answering is given up and named."""
    plan = approved(federation, folder, 6400, 2, deadline_s=3)
    pid = running(Home(folder).domain("south").pid_file) or 0
    began = []

    def stop(_: Any) -> None:
        os.kill(pid, signal.SIGSTOP)
        began.append(time.monotonic())

    try:
        federation.train(plan, folder / "silenced", stop)
    except ct.RunInterrupted as error:
        if "south" not in str(error):
            raise
        return round(time.monotonic() - began[0] - plan.deadline_s, 2)
    finally:
        os.kill(pid, signal.SIGCONT)
    raise SystemExit("A silent node wasn't missed.")


def approved(
    federation: ct.Federation,
    folder: Path,
    size: int,
    releases: int,
    update: Callable[[Any, Any, float], Any] | None = None,
    **more: Any,
) -> ct.Plan:
    """A plan whose state and release have `size` numbers, agreed to by all owners."""

    def loss(state: Any, user: Any) -> Any:
        return (state["table"][user.items] * user.mask[:, None]).sum()

    table = torch.from_numpy(np.random.default_rng(0).normal(size=(size // WIDTH, WIDTH)))
    plan = ct.Plan(
        name="round", purpose="benchmark", data=federation.data("interactions"),
        steps=[ct.Gradient("train", loss, ["table"], releases=releases, update=update or moved)],
        state={"table": table.float()}, epsilon=3.0, **more,
    )  # fmt: skip
    answers = federation.submit(plan)
    if {answer["status"] for answer in answers.values()} != {"pending"}:
        raise SystemExit(f"A node refused the plan: {answers}")
    for name in federation.nodes:
        open_owner(Home(folder), name).approve(federation.bind(plan).hash, "agreed")
    return plan


def moved(state: Any, total: Any, noise: float) -> Any:
    return {"table": state["table"] - 1e-3 * total["table"]}


def cpu_of_all() -> float:
    """CPU seconds of this process and all that it started, directly or not."""
    parents: dict[int, tuple[int, float]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = stat.read_text().rsplit(")", 1)[1].split()
            ticks = sum(int(fields[i]) for i in (11, 12, 13, 14))
            parents[int(stat.parent.name)] = int(fields[1]), ticks / os.sysconf("SC_CLK_TCK")
    ours = {os.getpid()}
    while more := {p for p, (parent, _) in parents.items() if parent in ours} - ours:
        ours |= more
    return sum(parents[pid][1] for pid in ours)


@contextlib.contextmanager
def attempts_watched(folder: Path) -> Iterator[dict[str, list[float]]]:
    """Peak memory while attempts are carried through: the coordinator's, and the largest node's."""
    found: dict[str, list[float]] = {"coordinator": [], "node": []}

    def watched(*arguments: Any, **more: Any) -> Any:
        pids = [running(Home(folder).domain(name).pid_file) for name in NAMES]
        peaks = [PeakMemory(pid) for pid in (None, *pids)]
        opened = carried_through(*arguments, **more)
        ours, *nodes = (peak.stop() for peak in peaks)
        found["coordinator"].append(ours)
        found["node"].append(max(nodes))
        return opened

    with patch("network.training.carried_through", watched):
        yield found


def whole_rounds(folder: Path, size: int, releases: int) -> tuple[Step, dict[str, Any]]:
    with partners(folder) as federation:
        plan = approved(federation, folder, size, releases)
        seen: list[tuple[float, float, float]] = []

        def mark(_: Any) -> None:
            ended, spent = time.monotonic(), cpu_of_all()
            seen.append((ended, spent, time.monotonic()))

        with attempts_watched(folder) as peaks:
            run = federation.train(plan, folder / "run", mark)
        step = federation.bind(plan).steps[0]
        late = silenced(federation, folder)
    steady = np.array(seen)[WARM_UP - 1 :]
    wall = np.median(steady[1:, 0] - steady[:-1, 2])
    cpu = np.median(np.diff(steady[:, 1]))
    last = run.history[-1]
    return step, {
        "size": size, "ring": step.ring, "wall_s": round(wall, 3), "cpu_s": round(cpu, 3),
        "phases": dict(last.seconds), "decided_after_deadline_s": late,
        "peak_beyond_vector_mb": {
            name: round(max(each) - 8 * size / 1e6, 1) for name, each in peaks.items()
        },
        "up_mb": round(last.received[NAMES[0]] / 1e6, 3),
        "down_mb": round(last.sent[NAMES[0]] / 1e6, 3),
    }  # fmt: skip


class _Masked(Response):
    """Ring elements as a node answers them: their digest is known from masking."""

    def __init__(self, octets: NDArray[np.uint8], digest: bytes) -> None:
        super().__init__()
        self._parts = answer_parts(OctetParts((octets,), {0: digest}))

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await send_parts(self._parts, send)


def serve_parts(port: int) -> None:
    """The parts of a round that one domain can't do without, each on request."""
    import uvicorn
    from starlette.applications import Starlette
    from starlette.concurrency import run_in_threadpool
    from starlette.middleware import Middleware
    from starlette.requests import Request
    from starlette.routing import Route

    kept: dict[str, Any] = {}

    async def down(request: Request) -> Response:
        call = read_head(message := await request.body())
        assert call is not None
        asked: Content = request.scope[ASKED]
        kept["state"] = call.carried_in(message, asked.digest_of(call.begin, call.octets))
        return Response(write_answer(""))

    async def noise(request: Request) -> Response:
        step = Step.model_validate_json(await request.body())

        def draw() -> None:
            kept["value"] = add_noise_share(
                np.zeros(step.width, dtype=np.int64), step.noise_multiplier, step.clip_norm,
                step.scale, 3, 1, SecureRandom(),
            )  # fmt: skip
            kept["bits"] = step.ring

        await run_in_threadpool(draw)
        return Response()

    async def mask(request: Request) -> Response:
        kept["elements"] = to_ring(kept["value"], kept["bits"])
        kept["digest"] = apply(kept["elements"], [Mask(os.urandom(32)) for _ in range(3)])
        return Response()

    async def up(request: Request) -> Response:
        return _Masked(kept["elements"].view(np.uint8), kept["digest"])

    routes = [Route(f"/{f.__name__}", f, methods=["POST"]) for f in (down, noise, mask, up)]
    app = Starlette(routes=routes, middleware=[Middleware(Seal, key=SigningKey(_PARTS_KEY))])
    uvicorn.run(app, host="127.0.0.1", port=port, log_level="error")


def parts_alone(step: Step, repeats: int) -> dict[str, float]:
    """Seconds of wall, as medians, of three domains doing one part at the same time."""
    ports = free_ports(3)
    command = [sys.executable, "-m", "benchmarks.round", "--parts"]
    servers = [subprocess.Popen([*command, str(port)]) for port in ports]
    try:
        return _parts_alone(step, ports, repeats)
    finally:
        for server in servers:
            server.kill()
            server.wait()


def _parts_alone(step: Step, ports: list[int], repeats: int) -> dict[str, float]:
    local = threading.local()

    key = SigningKey(_PARTS_KEY)
    node_key = bytes(key.verify_key).hex()
    octets = os.urandom(4 * step.width)

    def post(port: int, path: str, body: bytes | Parts) -> bytes:
        if not hasattr(local, "session"):
            local.session = requests.Session()
        answer = ask(local.session, "POST", f"http://127.0.0.1:{port}/{path}", body)
        if not answer.is_from(node_key):
            raise SystemExit("A part's answer isn't sealed.")
        return answer.content

    def send_part(part: Digested) -> None:
        list(
            pool.map(lambda p: post(p, "down", call_parts(key, "", "down", {"state": part})), ports)
        )

    def send_state() -> None:
        for begin in range(0, len(octets), PART_BYTES):
            send_part(Digested.of(octets[begin : begin + PART_BYTES]))

    def at_all(path: str, body: bytes = b"") -> list[bytes]:
        return list(pool.map(lambda port: post(port, path, body), ports))

    took: dict[str, list[float]] = {name: [] for name in ("noise", "transport", "masks")}
    description = step.model_dump_json().encode()
    with ThreadPoolExecutor(3) as pool:
        while True:
            with contextlib.suppress(requests.ConnectionError):
                send_state()
                break
        for _ in range(repeats):
            marks = [time.monotonic()]
            at_all("noise", description)
            marks.append(time.monotonic())
            send_state()
            at_all("mask")
            marks.append(time.monotonic())
            received = at_all("up")
            marks.append(time.monotonic())
            vectors = [read_answer(part).view(word(step.ring)) for part in received]
            total = np.add(np.add(vectors[0], vectors[1]), vectors[2])
            apply(total, [Mask(os.urandom(32)) for _ in range(3)])
            marks.append(time.monotonic())
            send_state()
            at_all("mask")
            marks.append(time.monotonic())
            at_all("mask")
            marks.append(time.monotonic())
            first, down_mask, up, opening, _, mask = np.diff(marks)
            took["noise"].append(first)
            took["transport"].append(down_mask - mask + up)
            took["masks"].append(mask + opening)
    return {name: round(statistics.median(each), 4) for name, each in took.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=1_000_000)
    parser.add_argument("--releases", type=int, default=10)
    parser.add_argument("--parts", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.parts is not None:
        serve_parts(options.parts)
        return
    with tempfile.TemporaryDirectory() as folder:
        step, found = whole_rounds(Path(folder) / "home", options.size, options.releases)
        alone = parts_alone(step, options.releases)
    ratio = found["wall_s"] / sum(alone.values())
    print(json.dumps({**found, "alone_s": alone, "ratio": round(ratio, 2)}))


if __name__ == "__main__":
    main()
