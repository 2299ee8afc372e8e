"""The commands as an owner meets them before any node is up; mistakes lose nothing."""

import json
import socket
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from coterie.cli import app
from coterie.exit_codes import ExitCode
from coterie.home import Home


def coterie(home: Path, *words: str) -> Result:
    return CliRunner().invoke(app, [*words, "--home", str(home)])


@pytest.fixture
def home(tmp_path: Path) -> Path:
    assert coterie(tmp_path / "home", "domain", "init", "north").exit_code == 0
    (tmp_path / "items.txt").write_text("a\nb\nc\n")
    return tmp_path / "home"


def data(home: Path, rows: str, *more: str, items: str = "items.txt") -> Result:
    (home.parent / "rows.csv").write_text(rows)
    files = ("--file", str(home.parent / "rows.csv"), "--catalogue", str(home.parent / items))
    return coterie(home, "domain", "data", "north", *files, "--users", "9", *more)


def test_a_domain_is_made_once(home: Path) -> None:
    card = json.loads(coterie(home, "domain", "card", "north").stdout)
    again = coterie(home, "domain", "init", "north")
    assert again.exit_code != 0
    assert "exists already" in again.output
    assert json.loads(coterie(home, "domain", "card", "north").stdout) == card


def test_the_report_on_a_file_is_for_the_owner(home: Path) -> None:
    done = data(home, "user,item\nu,a\nu,a\nv,b\nv,zzz\n")
    assert done.exit_code == 0, done.output
    assert "For the owner only" in done.output


@pytest.mark.parametrize(
    "rows", ["person,item\nu,a\n", "user,item\nu,\n", "", "user,item\nu,zzz\n"]
)
def test_bad_rows_leave_no_data_set_behind(home: Path, rows: str) -> None:
    refused = data(home, rows)
    assert refused.exit_code == ExitCode.BAD_DATA, refused.output
    assert not list(Home(home).domain("north").datasets.iterdir())


def test_a_second_data_set_may_have_another_schema(home: Path) -> None:
    assert data(home, "user,item\nu,a\n").exit_code == 0
    (home.parent / "films.txt").write_text("x\ny\n")
    other = data(home, "user,item,value,time\nu,x,3,4\n", "--dataset", "films", items="films.txt")
    assert other.exit_code == 0, other.output
    names = {path.name for path in Home(home).domain("north").datasets.iterdir()}
    assert names == {"interactions", "films"}


def test_a_taken_port_is_said_before_anything_starts(home: Path) -> None:
    assert data(home, "user,item\nu,a\n").exit_code == 0
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        settings = Home(home).domain("north").settings().model_copy(update={"port": port})
        Home(home).domain("north").write_settings(settings)
        refused = coterie(home, "domain", "up", "north")
    assert refused.exit_code != 0
    assert str(port) in refused.output
    assert "Traceback" not in refused.output


def test_a_stopped_domain_is_down_and_can_be_stopped_again(home: Path) -> None:
    assert "was not running" in coterie(home, "domain", "stop", "north").output
    shown = coterie(home, "domain", "status", "north", "--json")
    assert json.loads(shown.stdout)["up"] is False


@pytest.mark.parametrize(
    "words", [("domain", "up", "west"), ("domain", "card", "west"), ("ledger", "show", "west")]
)
def test_an_unknown_domain_is_a_sentence(home: Path, words: tuple[str, ...]) -> None:
    refused = coterie(home, *words)
    assert refused.exit_code != 0
    assert "west" in refused.output or "Usage" in refused.output
    assert "Traceback" not in refused.output
