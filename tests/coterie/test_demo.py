"""`coterie demo` as a newcomer runs it, on a small file: from data to table, and a denial."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from coterie.exit_codes import ExitCode
from coterie.home import Home
from coterie.processes import running
from policies.verify import verify

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


def demo(home: Path, *arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "coterie.cli", "demo", "--home", str(home), *arguments],
        cwd=home.parent, capture_output=True, text=True, timeout=280,
        env={"PYTHONPATH": str(Path(__file__).parents[2]), "PATH": "/usr/bin:/bin",
             "COLUMNS": "160", "HOME": str(home.parent)},
    )  # fmt: skip


def test_the_demo_trains_compares_verifies_and_cleans_up(ratings: Path, tmp_path: Path) -> None:
    home, figures = tmp_path / "home", tmp_path / "figures.json"
    done = demo(home, "--data", str(ratings), "--epsilon", "4", "--json", str(figures))
    assert done.returncode == ExitCode.OK, done.stdout + done.stderr
    assert "NOT PRIVATE" in done.stdout
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
        assert (tmp_path / "demo-results" / picture).stat().st_size > 10_000
    for name in PARTNERS:
        folder = Home(home).domain(name)
        assert folder.path.stat().st_mode & 0o777 == 0o700
        assert running(folder.pid_file) is None, "every process is stopped at the end"


def test_a_denial_ends_the_demo_before_anything_is_served_or_charged(
    ratings: Path, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    done = demo(home, "--data", str(ratings), "--deny", "east")
    assert done.returncode == ExitCode.DENIED, done.stdout + done.stderr
    assert "east denied: denied on request" in done.stderr
    assert "training" not in done.stdout
    for name in PARTNERS:
        verdict = verify(Home(home).domain(name).ledger_file)
        assert verdict.ok
        assert set(verdict.epsilon.values()) <= {0.0}


def test_a_denial_at_a_stranger_is_a_mistake_of_the_caller(tmp_path: Path) -> None:
    done = demo(tmp_path / "home", "--deny", "west")
    assert done.returncode == ExitCode.USAGE
    assert "'west' is no partner here: north, east, south" in done.stderr


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    done = demo(tmp_path / "home", "--data", str(tmp_path / "nothing.csv"))
    assert done.returncode == ExitCode.BAD_DATA
    assert "nothing.csv" in done.stderr
