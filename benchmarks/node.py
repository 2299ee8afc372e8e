"""A hardened node beside an unhardened one: memory, start, a small call, 8 MB there and back.

    OMP_NUM_THREADS=1 python -m benchmarks.node

Both serve the same Syft server with one more method, that answers what it is given; one behind
Coterie's gate, the other behind Syft's own routes and reader. The client is Syft's as shipped, in a
process that never imports coterie, and calls the two in turn. Ratios are of medians.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import requests

if TYPE_CHECKING:
    from domains.folder import DomainFolder

API = "/api/v2"
SMALL_CALLS, LARGE_CALLS, WARM_UP = 300, 15, 10


def serve(path: Path, hardened: bool) -> None:
    """Serve the folder's node, with or without the gate, until told to stop."""
    import domains.node
    import domains.paths
    from domains.folder import DomainFolder
    from domains.paths import paths_of

    folder = DomainFolder(path)
    settings = folder.settings()
    registry = domains.node._registry()
    domains.node._registry = lambda: _with_echo(registry)
    if hardened:
        from network import gate

        domains.paths.paths_of = lambda role: paths_of(role) | {"echo.echo"}
        app = domains.node.build_app(folder, settings)
        gate.serve_app(app, settings.host, settings.port)
        return
    import uvicorn
    from fastapi import FastAPI
    from syft.server.routes import make_routes

    app = FastAPI()
    app.include_router(make_routes(domains.node.start_server(folder, settings)), prefix=API)
    uvicorn.run(app, host=settings.host, port=settings.port, log_level="error", access_log=False)


def _with_echo(registry: type) -> type:
    from syft.serde.serializable import serializable
    from syft.service.context import AuthedServiceContext
    from syft.service.service import AbstractService, service_method
    from syft.service.user.user_roles import GUEST_ROLE_LEVEL
    from syft.store.db.db import DBManager

    @serializable(canonical_name="EchoService", version=1)
    class EchoService(AbstractService):
        def __init__(self, store: DBManager) -> None:
            self.store = store

        @service_method(path="echo.echo", name="echo", roles=GUEST_ROLE_LEVEL)
        def echo(self, context: AuthedServiceContext, value: Any = None) -> Any:
            return value

    extended = type("EchoRegistry", (registry,), {"__annotations__": {"echo": EchoService}})
    return serializable(canonical_name="EchoRegistry", version=1)(dataclass(extended))


def call_in_turn(accounts: Path) -> None:
    """Syft's own client calls both nodes in turn; prints seconds by node and size."""
    from syft.client.api import SyftAPICall, debox_signed_syftapicall_response
    from syft.client.client import HTTPConnection
    from syft.types.uid import UID

    def caller(account: dict[str, str]) -> Callable[[Any], Any]:
        connection = HTTPConnection(url=account["url"])
        key = connection.login(account["email"], account["password"]).signing_key
        uid = UID.from_string(connection.get_server_metadata(key).id)

        def call(value: Any) -> Any:
            sent = SyftAPICall(server_uid=uid, path="echo.echo", args=[], kwargs={"value": value})
            found = debox_signed_syftapicall_response(connection.make_call(sent.sign(key)))
            return found.unwrap().value

        return call

    callers = {name: caller(each) for name, each in json.loads(accounts.read_text()).items()}
    array = np.random.default_rng(0).integers(-(2**62), 2**62, 2**20)
    took: dict[str, dict[str, list[float]]] = {name: {"small": [], "8 MB": []} for name in callers}
    for size, value, times in (("small", 1, SMALL_CALLS), ("8 MB", array, LARGE_CALLS)):
        for turn in range(-WARM_UP if size == "small" else -2, times):
            for name, call in callers.items():
                began = time.perf_counter()
                found = call(value)
                lasted = time.perf_counter() - began
                if not np.array_equal(found, value):
                    raise SystemExit(f"{name} answered something else: {found!r:.300}")
                if turn >= 0:
                    took[name][size].append(lasted)
    print(json.dumps({n: {s: statistics.median(v) for s, v in t.items()} for n, t in took.items()}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--serve", type=Path)
    parser.add_argument("--unhardened", action="store_true")
    parser.add_argument("--call", type=Path)
    chosen = parser.parse_args()
    if chosen.serve is not None:
        serve(chosen.serve, not chosen.unhardened)
    elif chosen.call is not None:
        call_in_turn(chosen.call)
    else:
        compare()


def compare() -> None:
    from coterie.addresses import url_of
    from coterie.home import Home
    from coterie.partners import create_domain
    from coterie.processes import free_ports

    with tempfile.TemporaryDirectory() as folder:
        home = Home(Path(folder))
        accounts, started, processes = {}, {}, {}
        for name, port in zip(("hardened", "unhardened"), free_ports(2), strict=True):
            url = url_of(create_domain(home, name, "127.0.0.1", port))
            _add_data(home.domain(name), Path(folder))
            accounts[name] = json.loads(home.owner_login(name).read_text())
            command = [sys.executable, "-m", "benchmarks.node", "--serve"]
            command += [str(home.domain(name).path), *(["--unhardened"] * (name == "unhardened"))]
            began = time.monotonic()
            processes[name] = subprocess.Popen(command, stderr=subprocess.DEVNULL)
            _wait_for(url)
            started[name] = time.monotonic() - began
        file = Path(folder) / "accounts.json"
        file.write_text(json.dumps(accounts))
        try:
            idle = {name: _resident(process.pid) for name, process in processes.items()}
            done = subprocess.run(
                [sys.executable, "-W", "ignore", "-m", "benchmarks.node", "--call", str(file)],
                capture_output=True, text=True, check=False,
            )  # fmt: skip
            if done.returncode:
                sys.exit(done.stderr[-3000:])
            took = json.loads(done.stdout.splitlines()[-1])
        finally:
            for process in processes.values():
                process.terminate()
                process.wait()
    for name in processes:
        print(
            f"{name:11} up in {started[name]:4.1f} s  idle {idle[name]:4.0f} MiB  "
            f"small call {took[name]['small'] * 1e3:6.2f} ms  8 MB {took[name]['8 MB']:.3f} s"
        )
    for size in ("small", "8 MB"):
        ratio = took["hardened"][size] / took["unhardened"][size]
        print(f"{size}: {ratio:.2f} times the unhardened node")


def _add_data(domain: "DomainFolder", folder: Path) -> None:
    from coterie.partners import add_data

    (folder / "catalogue.txt").write_text("item-1\nitem-2\n")
    (folder / "rows.csv").write_text("user,item\na,item-1\nb,item-2\n")
    add_data(
        domain,
        file=folder / "rows.csv",
        catalogue=folder / "catalogue.txt",
        dataset="interactions",
        population="users",
        users=10,
        interactions_per_user=2,
        holdout=None,
        epsilon=1.0,
        public=False,
    )


def _wait_for(url: str) -> None:
    for _ in range(600):
        try:
            if requests.get(f"{url}{API}/", timeout=1).status_code == 200:
                return
        except requests.RequestException:
            time.sleep(0.1)
    sys.exit("A node did not start.")


def _resident(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return float("nan")


if __name__ == "__main__":
    main()
