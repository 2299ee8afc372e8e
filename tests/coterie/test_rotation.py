"""An owner's new key: her node, its ledger, its verifier and her partners follow; nobody else's."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from coterie.cli import app
from coterie.home import Home
from coterie.partners import create_domain, pin_peer
from coterie.report import report
from coterie.rotation import follow, pin_successor, replace_owner_key
from domains.folder import FolderError, public_hex
from policies.accounting import Event
from policies.approvals import load_owner_key, sign_approval
from policies.ledger import Ledger
from policies.ledger.errors import BadSignature
from policies.succession import sign_succession, successor
from policies.verify import verify


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """North, which has pinned east."""
    place = Home(tmp_path / "home")
    for name in ("north", "east"):
        create_domain(place, name, "127.0.0.1", 8199, "a passphrase" if name == "east" else None)
    east = place.domain("east")
    pin_peer(place.domain("north"), "east", public_hex(east.node_key()), east.settings().owner_key)
    return place


def ledger_of(home: Home, name: str) -> Ledger:
    folder = home.domain(name)
    return Ledger(folder.ledger_url, name, folder.node_key())


def approve(home: Home, plan: str, key: Path) -> None:
    """A plan at east, approved with the key in that file."""
    ledger = ledger_of(home, "east")
    ledger.open_budget("people", 8.0, 1e-5)
    ledger.submit(plan, "plan", "ada", "people", [Event(8.0, 1.0, 1)], {})
    owner = load_owner_key(key, "a passphrase")
    text = sign_approval(owner, plan, "east")
    ledger.approve(plan, "owner", public_hex(owner), text, "0" * 64)


def verdict(home: Home, owner_key: str | None) -> str:
    folder = home.domain("east")
    return verify(folder.ledger_file, public_hex(folder.node_key()), owner_key).problem


def test_node_ledger_verifier_and_partners_follow_the_owners_new_key(
    home: Home, tmp_path: Path
) -> None:
    east, letter, key = home.domain("east"), tmp_path / "letter.json", home.owner_key("east")
    before = east.settings().owner_key
    approve(home, "a" * 64, key)
    answered = CliRunner().invoke(
        app,
        ["domain", "rotate", "east", "--out", str(letter), "--passphrase", "--home", home.path],
        input="a passphrase\nanother passphrase\nanother passphrase\n",
    )
    assert answered.exit_code == 0, answered.output
    after = east.settings().owner_key
    assert after == public_hex(load_owner_key(key, "another passphrase")) != before
    kept = key.with_name(f"owner-{before[:16]}.pem")
    assert public_hex(load_owner_key(kept, "a passphrase")) == before
    answered = CliRunner().invoke(
        app, ["domain", "pin", "north", "east", "--letter", str(letter), "--home", home.path]
    )
    assert answered.exit_code == 0, answered.output
    pinned = home.domain("north").settings().peers["east"]
    assert (pinned.node_key, pinned.owner_key) == (public_hex(east.node_key()), after)
    assert verdict(home, after) == verdict(home, None) == ""
    assert f"expected {before}" in verdict(home, before)
    ledger = ledger_of(home, "east")
    page = report(ledger, ledger.export(), verify(east.ledger_file))
    assert f"key {before[:16]} is replaced by {after[:16]}" in page


def test_what_was_cut_off_halfway_is_finished(home: Home, tmp_path: Path) -> None:
    letter, key = tmp_path / "letter.json", home.owner_key("east")
    old = key.read_bytes()
    first = replace_owner_key(
        home, "east", letter, passphrase="a passphrase", new="next", reason=""
    )
    # As a crash would leave it that came after the node had followed, before the file was replaced.
    shutil.copy(key, key.with_suffix(".next"))
    key.write_bytes(old)
    again = replace_owner_key(
        home, "east", letter, passphrase="a passphrase", new="next", reason=""
    )
    assert first == again == home.domain("east").settings().owner_key
    assert [entry.kind for entry in ledger_of(home, "east").entries()].count("owner") == 1
    assert follow(home.domain("east"), letter) == first, "a letter is followed once"


def test_the_old_key_approves_nothing_that_verifies_any_more(home: Home, tmp_path: Path) -> None:
    key = home.owner_key("east")
    new = replace_owner_key(
        home, "east", tmp_path / "l", passphrase="a passphrase", new="next", reason="stolen"
    )
    old = key.with_name(next(key.parent.glob("owner-*.pem")).name)
    approve(home, "b" * 64, old)
    assert "not by the domain's owner" in verdict(home, new)
    assert "not by the domain's owner" in verdict(home, None)


def test_a_key_can_not_be_put_before_or_behind_the_owners(home: Home, tmp_path: Path) -> None:
    """Whoever holds the node's key could write such entries; nobody takes them."""
    mallory = Home(tmp_path / "mallory")
    create_domain(mallory, "east", "127.0.0.1", 8199)
    hers = load_owner_key(home.owner_key("east"), "a passphrase")
    his = load_owner_key(mallory.owner_key("east"), None)
    for old, new in ((his, hers), (hers, his)):
        replaces, owner_key = public_hex(old), public_hex(new)
        signature, consent = sign_succession(his, his, "east")
        for texts in ((signature, consent), ("", ""), ("{}", "[" * 10000)):
            assert successor(replaces, "east", *texts) is None
            with pytest.raises(BadSignature):
                ledger_of(home, "east").succeed_owner(replaces, owner_key, *texts)
            forged = ledger_of(mallory, "east")
            with forged._database.writing() as session:
                forged._chain.append(
                    session, "owner", replaces=replaces, owner_key=owner_key,
                    signature=texts[0], consent=texts[1],
                )  # fmt: skip
            problem = verify(mallory.domain("east").ledger_file).problem
            assert "keys" in problem, problem


FORGERIES: dict[str, Callable[[dict[str, str]], object]] = {
    "not signed": lambda said: {**said, "signature": ""},
    "another new key": lambda said: {**said, "owner_key": "0" * 64},
    "signed once": lambda said: {**said, "consent": said["signature"]},
    "a list": lambda said: [said],
    "numbers": lambda said: dict.fromkeys(said, 5),
    "incomplete": lambda said: {"replaces": said["replaces"]},
}


@pytest.mark.parametrize("how", FORGERIES)
def test_partners_take_no_letter_but_the_pinned_owners(
    how: str, home: Home, tmp_path: Path
) -> None:
    letter, north = tmp_path / "letter.json", home.domain("north")
    before = north.settings().peers
    replace_owner_key(home, "east", letter, passphrase="a passphrase", new="next", reason="")
    said = json.loads(letter.read_text())
    letter.write_text(json.dumps(FORGERIES[how](said)))
    for peer in ("east", "west"):
        with pytest.raises(FolderError):
            pin_successor(north, peer, letter)
    with pytest.raises(FolderError):
        follow(home.domain("east"), letter)
    assert north.settings().peers == before


def test_a_letter_of_another_domain_or_another_key_is_refused(home: Home, tmp_path: Path) -> None:
    letter = tmp_path / "letter.json"
    replace_owner_key(home, "north", letter, passphrase=None, new=None, reason="")
    with pytest.raises(FolderError, match="for east"):
        pin_successor(home.domain("north"), "east", letter)
    with pytest.raises(FolderError, match="for east"):
        follow(home.domain("east"), letter)
    replace_owner_key(
        home, "east", letter, passphrase="a passphrase", new="a passphrase", reason=""
    )
    replace_owner_key(
        home, "east", letter, passphrase="a passphrase", new="a passphrase", reason=""
    )
    with pytest.raises(FolderError, match="but the key pinned for east"):
        pin_successor(home.domain("north"), "east", letter)
