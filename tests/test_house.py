"""The house itself: imports point one way, commands show an example, exit codes are explained."""

import ast
from pathlib import Path

import click
import pytest
import typer

import coterie as ct
from coterie.cli import app
from coterie.exit_codes import ExitCode
from coterie.scripts import Script
from policies.accounting import plan_epsilon
from policies.admission import Bounds, admit
from policies.plan import RosterEntry

ROOT = Path(__file__).parents[1]
ALLOWED = {
    "policies": {"policies"},
    "domains": {"domains", "policies", "network.smpc", "network.gate", "network.secrets"},
    "network": {"network", "policies"},
    "recommenders": {"recommenders", "coterie"},
    "coterie": {"coterie", "network", "domains", "policies", "recommenders"},
    "dashboard": {"dashboard", "coterie", "network", "policies"},
}
ROOMS = tuple(ALLOWED)


@pytest.mark.parametrize("room", ROOMS)
def test_imports_point_one_way(room: str) -> None:
    for file in (ROOT / room).rglob("*.py"):
        for name in imported(file):
            if name.split(".")[0] in ROOMS:
                allowed = any(name == a or name.startswith(a + ".") for a in ALLOWED[room])
                assert allowed, f"{file} imports {name}"


def test_nothing_is_loaded_by_running_it() -> None:
    for room in ROOMS:
        for file in (ROOT / room).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text())):
                if isinstance(node, ast.Import | ast.ImportFrom):
                    names = {a.name for a in node.names} | {getattr(node, "module", "") or ""}
                    assert not names & {"pickle", "dill", "cloudpickle", "marshal"}, file
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                    assert node.func.id not in {"eval", "exec"}, file


def commands() -> list[tuple[str, click.Command]]:
    found = []

    def walk(path: str, command: click.Command) -> None:
        if isinstance(command, click.Group):
            for name, child in command.commands.items():
                walk(f"{path} {name}", child)
        else:
            found.append((path, command))

    walk("coterie", typer.main.get_command(app))
    return found


@pytest.mark.parametrize(("path", "command"), commands(), ids=lambda value: str(value))
def test_every_command_shows_an_example(path: str, command: click.Command) -> None:
    assert f"Example: {path}" in (command.help or "")


# These do something and say that they did; `card` and `heads` print nothing but JSON.
ACTS = {
    *("dashboard", "certificate", "dealer", "requests approve", "requests sign", "requests revoke"),
    *("requests preapprove", "requests deny", "plan withdraw", "hub up", "hub stop", "hub admit"),
    *("domain init", "domain data", "domain up", "domain stop", "domain backup", "domain restore"),
    *("domain invite", "domain renew", "domain expel", "domain certificate", "domain pin"),
    *("domain unpin", "domain rotate", "domain card"),
    *("ledger heads", "ledger prove", "ledger export", "rules sign", "rules write"),
}


@pytest.mark.parametrize(("path", "command"), commands(), ids=lambda value: str(value))
def test_every_command_that_prints_data_prints_json_on_request(
    path: str, command: click.Command
) -> None:
    options = {option for parameter in command.params for option in parameter.opts}
    assert ("--json" in options) != (path.removeprefix("coterie ") in ACTS)


def test_every_exit_code_is_explained() -> None:
    page = (ROOT / "docs" / "exit-codes.md").read_text()
    for code in ExitCode:
        assert f"{code.value} " in page, f"docs/exit-codes.md misses {code.value} {code.name}"


def test_the_example_is_short_and_becomes_a_plan() -> None:
    file = ROOT / "examples" / "movielens_mf.py"
    assert len(file.read_text().splitlines()) <= 60
    data = ct.DataSet("interactions", 50, 8, 300, "0" * 64, False)
    roster = [
        RosterEntry(name=n, server_uid=n * 32, node_key=k * 64, owner_key=k * 64)
        for n, k in (("a", "1"), ("b", "2"), ("c", "3"))
    ]
    bound = Script(str(file), "interactions", 8.0).write(data).bind(roster, "0" * 64)
    admit(bound, Bounds(50, 8, 300), public=False)
    assert plan_epsilon(bound.events(), bound.delta) <= 8.0


def imported(file: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return names
