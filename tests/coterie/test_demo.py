"""`coterie demo` on a small file: from data to table as a newcomer runs it, and denials.

The first test runs the very command; the others call it in this process.
"""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import requests
from click.testing import Result
from typer.testing import CliRunner

import coterie.demo
from coterie.cli import app
from coterie.exit_codes import ExitCode
from coterie.home import Home
from coterie.hub import stop_hub
from coterie.partners import stop_domain
from coterie.processes import running
from policies.verify import verify
from tests.nursery import Nursery

pytestmark = pytest.mark.nodes

PARTNERS = ("north", "east", "south")


@pytest.fixture(scope="module")
def ratings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """90 users of two tastes, 120 items, 15 interactions each, with times and text ids."""
    random = np.random.default_rng(7)
    rows = []
    for user in range(90):
        taste = np.where(np.arange(120) % 2 == user % 2, 3.0, 1.0)
        items = random.choice(120, 15, replace=False, p=taste / taste.sum())
        rows += [(f"u{user}", f"i{item}", time) for time, item in enumerate(items)]
    file = tmp_path_factory.mktemp("ratings") / "ratings.csv"
    pd.DataFrame(rows, columns=["user", "item", "time"]).to_csv(file, index=False)
    return file


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """Where the demo that stays up runs, and the next one after it."""
    place = Home(tmp_path_factory.mktemp("demo") / "home")
    yield place
    for name in place.domains():
        stop_domain(place, name)
    stop_hub(place)


def demo(home: Home, *arguments: str) -> Result:
    results = str(home.path.parent / "results")
    words = ["demo", "--home", str(home.path), "--results", results, *arguments]
    return CliRunner(mix_stderr=False).invoke(app, words)


def up(home: Home) -> set[str]:
    """What runs of a demo: its nodes, their dashboards, the hub."""
    files = list(home.path.rglob("*.pid"))
    return {f"{file.parent.name} {file.stem}" for file in files if running(file) is not None}


@pytest.mark.timeout(600)
def test_the_demo_trains_compares_verifies_and_stays_up_if_asked(home: Home, ratings: Path) -> None:
    folder, figures = home.path.parent, home.path.parent / "figures.json"
    done = subprocess.run(
        [sys.executable, "-m", "coterie.cli", "demo", "--home", str(home.path), "--serve",
         "--data", str(ratings), "--epsilon", "4", "--json", str(figures)],
        cwd=folder, capture_output=True, text=True, timeout=580,
        env={"PYTHONPATH": str(Path(__file__).parents[2]), "PATH": "/usr/bin:/bin",
             "COLUMNS": "160", "HOME": str(folder)},
    )  # fmt: skip
    assert done.returncode == ExitCode.OK, done.stdout + done.stderr
    assert "NOT PRIVATE" in done.stdout
    assert "[bold]" not in done.stdout
    assert "Cost: epsilon" in done.stdout
    assert "computes for each user alone" not in done.stdout, "that is for `requests show`"
    found = json.loads(figures.read_text())
    models = [row["model"].partition(" (")[0] for row in found["rows"]]
    assert models == [
        "popularity", "north alone", "east alone", "south alone", "Coterie, epsilon 4",
        "Coterie without noise: NOT PRIVATE", "central",
    ]  # fmt: skip
    [private] = found["private_runs"]
    assert 0 < private["releases"][-1]["epsilon"] <= 4
    assert private["epsilon_at_every_partner"] > private["releases"][-1]["epsilon"]
    assert all(verdict["ok"] for verdict in found["verdicts"].values())
    for picture in ("learning-curve.png", "budget.png"):
        assert (folder / "demo-results" / picture).stat().st_size > 10_000
    for name in PARTNERS:
        assert home.domain(name).path.stat().st_mode & 0o777 == 0o700
        address = re.search(rf"{name}  dashboard: (\S+)", done.stdout)
        assert address is not None
        assert requests.get(f"{address[1]}/_stcore/health", timeout=120).status_code == 200
        assert f"{name}  owner's login: {home.owner_login(name)}" in done.stdout
    everything = {f"{name} {what}" for name in PARTNERS for what in ("node", "dashboard")}
    assert up(home) == {*everything, "hub node"}
    assert stop_domain(home, "north")
    assert up(home) == {*everything, "hub node"} - {"north node", "north dashboard"}


def test_under_review_it_waits_for_the_owners_and_a_second_demo_replaces_the_first(
    home: Home, ratings: Path, nursery: Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    decisions = [["approve", "north"], ["deny", "east", "--reason", "not this month"]]
    waited = []

    def meanwhile(seconds: float) -> None:
        waited.append(seconds)
        done, name, *more = decisions.pop(0)
        plan = next(home.domain(name).store.glob("plans/*.json")).stem
        command = ["coterie.cli", "requests", done, plan[:12], "--domain", name, *more]
        with (home.path / "terminal").open("wb") as out:
            words = [*command, "--home", str(home.path)]
            code = nursery.run(words, out.fileno(), environment=os.environ).wait()
        assert code == ExitCode.OK, (home.path / "terminal").read_text()

    clock = SimpleNamespace(sleep=meanwhile, monotonic=time.monotonic)
    monkeypatch.setattr(coterie.demo, "time", clock)
    done = demo(home, "--data", str(ratings), "--review")
    assert done.exit_code == ExitCode.DENIED, done.stdout + done.stderr
    assert "coterie requests approve" in done.stdout
    assert "east denied: not this month" in done.stderr
    assert len(waited) == 2
    assert up(home) == set(), "what the demo before left running is stopped too"


def test_a_denial_ends_the_demo_before_anything_is_served_or_charged(
    ratings: Path, tmp_path: Path
) -> None:
    home = Home(tmp_path / "home")
    done = demo(home, "--data", str(ratings), "--deny", "east")
    assert done.exit_code == ExitCode.DENIED, done.stdout + done.stderr
    assert "east denied: denied on request" in done.stderr
    assert "training" not in done.stdout
    for name in PARTNERS:
        verdict = verify(home.domain(name).ledger_file)
        assert verdict.ok
        assert set(verdict.epsilon.values()) <= {0.0}
    assert up(home) == set(), "every process is stopped at the end"


def test_a_denial_at_a_stranger_is_a_mistake_of_the_caller(tmp_path: Path) -> None:
    done = demo(Home(tmp_path / "home"), "--deny", "west")
    assert done.exit_code == ExitCode.USAGE
    assert "'west' is no partner here: north, east, south" in done.stderr


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    done = demo(Home(tmp_path / "home"), "--data", str(tmp_path / "nothing.csv"))
    assert done.exit_code == ExitCode.BAD_DATA
    assert "nothing.csv" in done.stderr
