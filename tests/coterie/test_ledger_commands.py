"""`coterie ledger` for an owner and an auditor, without a running node."""

import json
import re
from pathlib import Path

import pytest
from click.testing import Result
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from typer.testing import CliRunner

from coterie.cli import app
from coterie.exit_codes import ExitCode
from coterie.home import Home
from policies.accounting import ADJACENCY, Event
from policies.approvals import owner_key_hex, sign_approval
from policies.ledger import Ledger

OWNER = Ed25519PrivateKey.generate()
PLAN, HOSTILE = "a" * 64, "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("home")
    assert coterie(home, "domain", "init", "north").exit_code == 0
    folder = Home(home).domain("north")
    ledger = Ledger(folder.ledger_url, "north", folder.node_key())
    ledger.open_budget(HOSTILE, 8.0, 1e-5)
    facts = {"delta": 1e-6, "roster": ["north", "south"]}
    ledger.submit(PLAN, HOSTILE, HOSTILE, HOSTILE, [Event(4.0, 1.0, 3)], facts, 1)
    signature = sign_approval(OWNER, PLAN, "north")
    ledger.approve(PLAN, HOSTILE, owner_key_hex(OWNER), signature, "e" * 64, HOSTILE)
    ledger.reserve(PLAN, "train", 0, 0, Event(4.0, 1.0, 1))
    ledger.charge(PLAN, "train", 0, 0, "5" * 64)
    ledger.settle(PLAN, "train", 0, 0, "6" * 64)
    ledger.dispose()
    return home


def coterie(home: Path, *words: str) -> Result:
    return CliRunner().invoke(app, [*words, "--home", str(home)])


def test_an_export_verifies_and_its_page_is_safe_to_open(home: Path, tmp_path: Path) -> None:
    done = coterie(home, "ledger", "export", "--domain", "north", "--out", str(tmp_path))
    assert done.exit_code == 0, done.output
    verified = coterie(home, "ledger", "verify", str(tmp_path / "north-ledger.json"), "--json")
    verdict = json.loads(verified.stdout)
    assert (verdict["ok"], verdict["complete"]) == (True, False)
    assert (tmp_path / "north-ledger.pdf").read_bytes().startswith(b"%PDF-")
    page = (tmp_path / "north-ledger.html").read_text()
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert "http" not in page


def test_every_epsilon_of_the_page_has_its_delta_and_unit(home: Path, tmp_path: Path) -> None:
    coterie(home, "ledger", "export", "--domain", "north", "--out", str(tmp_path))
    page = (tmp_path / "north-ledger.html").read_text()
    figures = re.findall(r"ε = (\S+)</b> <small>\(δ = (\S+); ([^)]*)\)", page)
    assert len(figures) == page.count("ε = ") == 7
    assert {unit for _, _, unit in figures} == {ADJACENCY}
    assert [delta for _, delta, _ in figures] == ["1e-05"] * 5 + ["1e-06"] * 2
    assert "partners" in page


def test_the_page_says_what_to_ask_about(home: Path, tmp_path: Path) -> None:
    coterie(home, "ledger", "export", "--domain", "north", "--out", str(tmp_path))
    page = (tmp_path / "north-ledger.html").read_text()
    alerts = page[page.index("<h2>Alerts</h2>") : page.index("<h2>Plans</h2>")]
    shown = json.loads(coterie(home, "ledger", "alerts", "--domain", "north", "--json").stdout)
    assert [each["kind"] for each in shown] == ["head not co-signed"]
    assert shown[0]["message"][:60] in alerts.replace("&#39;", "'")
    assert "Nothing to ask about" not in alerts


def test_a_changed_bundle_does_not_verify(home: Path, tmp_path: Path) -> None:
    coterie(home, "ledger", "export", "--domain", "north", "--out", str(tmp_path))
    file = tmp_path / "north-ledger.json"
    file.write_text(file.read_text().replace('"exported": "20', '"exported": "19'))
    refused = coterie(home, "ledger", "verify", str(file))
    assert refused.exit_code == ExitCode.NOT_VERIFIED
    assert "BAD: the bundle" in refused.output


def test_one_entry_can_be_proven(home: Path, tmp_path: Path) -> None:
    proof = tmp_path / "proof.json"
    words = ("ledger", "prove", "4", "--domain", "north", "--out", str(proof))
    assert coterie(home, *words).exit_code == 0
    assert "Entry 4 is in the ledger of 'north'" in coterie(
        home, "ledger", "verify", str(proof)
    ).output.replace("\n", " ")
    missing = coterie(home, "ledger", "prove", "99", "--domain", "north")
    assert missing.exit_code == ExitCode.REFUSED
    assert "no entry 99" in missing.output


def test_what_is_held_of_peers_is_exported(home: Path) -> None:
    said = json.loads(coterie(home, "ledger", "heads", "--domain", "north").stdout)
    assert (said["format"], said["witness"], said["heads"]) == ("coterie-heads-v1", "north", [])


def test_a_missing_file_is_a_sentence(home: Path) -> None:
    missing = coterie(home, "ledger", "verify", "nowhere.db")
    assert missing.exit_code == ExitCode.USAGE
    assert "no ledger at nowhere.db" in missing.output
