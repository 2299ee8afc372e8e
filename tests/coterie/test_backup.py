"""Back-up and restore: everything comes back, an older ledger than the co-signed one doesn't."""

import io
import json
import os
import sqlite3
import tarfile
from pathlib import Path

import pytest
import requests
from typer.testing import CliRunner

from coterie.backup import RestoreRefused, back_up, restore
from coterie.cli import app
from coterie.home import Home
from coterie.partners import (
    create_domain,
    pin_peer,
)
from domains.folder import DomainFolder, FolderError, Peer, public_hex
from domains.witness import ask_for_heads
from policies.accounting import Event
from policies.ledger import Ledger
from policies.ledger.heads import Note
from policies.ledger.heads import Release as Reserved
from tests.network_of_three import Network, counting_plan


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """Two partners that pinned each other, each with a ledger; north's was co-signed by east."""
    place = Home(tmp_path / "home")
    for name in ("north", "east"):
        create_domain(place, name, "127.0.0.1", 8199)
        folder = place.domain(name)
        ledger = Ledger(folder.ledger_url, name, folder.node_key())
        ledger.open_budget("people", 8.0, 1e-5)
    for name, peer in (("north", "east"), ("east", "north")):
        settings = place.domain(peer).settings()
        pin_peer(
            place.domain(name), peer, public_hex(place.domain(peer).node_key()), settings.owner_key
        )
    return place


def ledger_of(home: Home, name: str) -> Ledger:
    folder = home.domain(name)
    return Ledger(folder.ledger_url, name, folder.node_key())


def cosigned_by_east(home: Home, file: Path) -> Path:
    """East's file of heads after north showed it its ledger in a round."""
    north, east = ledger_of(home, "north"), ledger_of(home, "east")
    event, plan = Event(8.0, 1.0, 1), "a" * 64
    if north.status(plan) == "unknown":
        north.submit(plan, "plan", "ada", "people", [Event(8.0, 1.0, 5)], {})
        north.approve(plan, "owner", home.domain("north").settings().owner_key, *signed(home, plan))
    release = len(north.attempts(plan))
    entry = north.reserve(plan, "s", release, 0, event)
    key = public_hex(home.domain("north").node_key())
    note = Note.read(
        {**(said := north.heads.note(entry, {"east": east.heads.held([key])[key]})),
         "extends": said["extends"]["east"]},
        "north",
    )  # fmt: skip
    held = east.heads.held([key])[key]
    east.heads.cosign(note, "north", key, held, Reserved(plan, "s", release, 0, event))
    file.write_text(json.dumps(east.heads.export()))
    return file


def signed(home: Home, plan: str) -> tuple[str, str, str]:
    from policies.approvals import load_owner_key, sign_approval
    from policies.canonical import sha256_hex

    key = load_owner_key(home.owner_key("north"), None)
    shown = sha256_hex(b"")
    return sign_approval(key, plan, "north", by="o", reason="r", explanation=shown), shown, "r"


def test_everything_comes_back(home: Home, tmp_path: Path) -> None:
    heads = cosigned_by_east(home, tmp_path / "east.json")
    before = ledger_of(home, "north").heads.head()
    settings = home.domain("north").settings()
    (home.domain("north").store / "x.held").write_text("a share")
    back_up(home, "north", tmp_path / "north.tar")
    assert (tmp_path / "north.tar").stat().st_mode & 0o777 == 0o600
    elsewhere = Home(tmp_path / "new machine")
    assert "complete" in restore(elsewhere, "north", tmp_path / "north.tar", heads=[heads])
    folder = elsewhere.domain("north")
    again = folder.settings()
    assert again.model_copy(update={"epoch": None}) == settings
    assert settings.syft_uid == settings.server_uid == again.server_uid != again.syft_uid
    assert ledger_of(elsewhere, "north").heads.head() == before
    assert not (folder.store / "x.held").exists(), "a share of a round under way is left out"
    assert (folder.path / "node.key").stat().st_mode & 0o777 == 0o600


def test_a_ledger_older_than_the_one_a_partner_cosigned_is_refused(
    home: Home, tmp_path: Path
) -> None:
    heads = cosigned_by_east(home, tmp_path / "east.json")
    back_up(home, "north", tmp_path / "old.tar")
    elsewhere = Home(tmp_path / "new machine")
    newer = cosigned_by_east(home, tmp_path / "newer.json")
    with pytest.raises(RestoreRefused, match="isn't put back"):
        restore(elsewhere, "north", tmp_path / "old.tar", heads=[newer])
    assert not elsewhere.domain("north").path.exists()
    assert "complete" in restore(elsewhere, "north", tmp_path / "old.tar", heads=[heads])


def test_the_ledger_that_lies_there_counts_too(home: Home, tmp_path: Path) -> None:
    heads = cosigned_by_east(home, tmp_path / "east.json")
    back_up(home, "north", tmp_path / "old.tar")
    ledger_of(home, "north").open_budget("people", 4.0, 1e-5)
    with pytest.raises(RestoreRefused, match="forget"):
        restore(home, "north", tmp_path / "old.tar", heads=[heads])
    back_up(home, "north", tmp_path / "new.tar")
    restore(home, "north", tmp_path / "new.tar", heads=[heads])
    assert list(home.domain("north").path.parent.glob(".north.before-*")), "the old one is kept"


def test_partners_that_were_not_heard_are_named(home: Home, tmp_path: Path) -> None:
    back_up(home, "north", tmp_path / "north.tar")
    arguments = ["domain", "restore", "north", str(tmp_path / "north.tar"), "--home"]
    elsewhere = str(tmp_path / "new machine")
    refused = CliRunner().invoke(app, [*arguments, elsewhere])
    assert refused.exit_code == 2
    restored = CliRunner().invoke(app, [*arguments, elsewhere, "--unheard", "east"])
    assert restored.exit_code == 0, restored.output


def test_a_strangers_heads_and_a_tampered_archive_are_refused(home: Home, tmp_path: Path) -> None:
    back_up(home, "north", tmp_path / "north.tar")
    stranger = tmp_path / "stranger.json"
    stranger.write_text(json.dumps(ledger_of(home, "north").heads.export()))
    elsewhere = Home(tmp_path / "new machine")
    with pytest.raises(RestoreRefused, match="hasn't pinned"):
        restore(elsewhere, "north", tmp_path / "north.tar", heads=[stranger])
    for name, kind in (("../escaped", tarfile.REGTYPE), ("link", tarfile.SYMTYPE)):
        entry = tarfile.TarInfo(name)
        entry.type, entry.linkname = kind, "/etc/passwd"
        with tarfile.open(tmp_path / "evil.tar", "w") as archive:
            archive.addfile(entry)
        with pytest.raises(RestoreRefused):
            restore(elsewhere, "north", tmp_path / "evil.tar")
    assert not (tmp_path / "escaped").exists()
    with pytest.raises(RestoreRefused, match="no back-up of east"):
        restore(elsewhere, "east", tmp_path / "north.tar", unheard=["north"])


def archived(file: Path, **content: bytes | tarfile.TarInfo) -> Path:
    """A back-up file with these entries; underscores stand for dots."""
    with tarfile.open(file, "w") as archive:
        for name, each in content.items():
            if isinstance(each, tarfile.TarInfo):
                archive.addfile(each)
                continue
            entry = tarfile.TarInfo(name.replace("_", "."))
            entry.size = len(each)
            archive.addfile(entry, io.BytesIO(each))
    return file


def endless(name: str) -> tarfile.TarInfo:
    """An entry after which its own head comes again (CVE-2025-8194)."""
    entry = tarfile.TarInfo(name)
    entry.size = -512
    return entry


def sparse(name: str, size: int) -> tarfile.TarInfo:
    """An entry that claims a size and holds nothing (GNU's old sparse format)."""
    entry = tarfile.TarInfo(name)
    entry.type, entry.size = tarfile.GNUTYPE_SPARSE, size
    return entry


ABOUT = json.dumps({"format": "coterie-backup-v1", "name": "north"}).encode()
TOML = b'name = "north"\nserver_uid = "%s"\nport = 8199\nowner_email = "o"\nowner_key = "%s"\n'
DATABASE = b'database = "postgres"\n'


@pytest.mark.parametrize(
    "content",
    [
        {"backup_json": b"["}, {"backup_json": b"[" * 100_000}, {"backup_json": b"[1, 2]"},
        {"backup_json": b"null"}, {"backup_json": b"\xff"}, {"a": sparse("backup.json", 2**40)},
        {"a": endless("backup.json")},
        {"a": tarfile.TarInfo("/etc/cron.d/x"), "backup_json": b"{}"},
        {"backup_json": ABOUT}, {"backup_json": ABOUT, "domain_toml": b"a = " + b"[" * 100_000},
        {"backup_json": ABOUT, "domain_toml": b"\xff"}, {"backup_json": ABOUT, "domain_toml": b""},
        *(
            {"backup_json": ABOUT, "domain_toml": TOML % (b"0" * 32, b"0" * 64) + DATABASE,
             "node_key": b"0" * 64, "tables_json": tables}
            for tables in (b"[]", b'{"a": 1}', b'{"a": [1]}', b'{"a": [{"b": {"time": 1}}]}',
                           b'{"a": [{"b": {"c": 1, "d": 2}}]}', b'{"ledgerentry": [{"b": "c"}]}')
        ),
    ],
)  # fmt: skip
def test_a_hostile_back_up_is_refused_in_a_sentence(
    content: dict[str, bytes | tarfile.TarInfo], tmp_path: Path
) -> None:
    place = Home(tmp_path / "home")
    with pytest.raises(FolderError):
        restore(place, "north", archived(tmp_path / "evil.tar", **content))
    assert not place.domain("north").path.exists()
    assert sum(file.stat().st_size for file in tmp_path.rglob("*") if file.is_file()) < 2**20


def changed(home: Home, tmp_path: Path, **settings: object) -> Path:
    """A back-up of north in whose domain.toml somebody wrote something else."""
    back_up(home, "north", tmp_path / "north.tar")
    with tarfile.open(tmp_path / "north.tar") as archive:
        archive.extractall(tmp_path / "copy", filter="data")
    folder = DomainFolder(tmp_path / "copy")
    folder.write_settings(folder.settings().model_copy(update=settings))
    with tarfile.open(tmp_path / "changed.tar", "w") as archive:
        archive.add(tmp_path / "copy", ".")
    return tmp_path / "changed.tar"


def test_partners_that_the_back_up_leaves_out_are_asked_all_the_same(
    home: Home, tmp_path: Path
) -> None:
    with pytest.raises(RestoreRefused, match="Not heard: east"):
        restore(home, "north", changed(home, tmp_path, peers={}))


def test_whom_the_owner_trusts_is_not_what_a_back_up_says(home: Home, tmp_path: Path) -> None:
    """Its pins and its owner's key are another's, who could sign heads and approvals with them."""
    before = home.domain("north").settings()
    heads = cosigned_by_east(home, tmp_path / "east.json")
    create_domain(Home(tmp_path / "mallory"), "east", "127.0.0.1", 8199)
    mallory = ledger_of(Home(tmp_path / "mallory"), "east")
    theirs = Peer(node_key=mallory.heads.export()["witness_key"], owner_key="0" * 64)
    file = changed(home, tmp_path, peers={"east": theirs}, owner_key="1" * 64)
    forged = tmp_path / "forged.json"
    forged.write_text(json.dumps(mallory.heads.export()))
    with pytest.raises(RestoreRefused, match="hasn't pinned"):
        restore(home, "north", file, heads=[forged])
    restore(home, "north", file, heads=[heads])
    after = home.domain("north").settings()
    assert (after.peers, after.owner_key) == (before.peers, before.owner_key)


def test_a_back_up_of_another_domain_of_that_name_is_refused(home: Home, tmp_path: Path) -> None:
    with pytest.raises(RestoreRefused, match="another domain named north"):
        restore(home, "north", changed(home, tmp_path, server_uid="f" * 32), unheard=["east"])


def test_on_a_new_machine_the_back_ups_pins_are_shown(home: Home, tmp_path: Path) -> None:
    back_up(home, "north", tmp_path / "north.tar")
    text = restore(Home(tmp_path / "new"), "north", tmp_path / "north.tar", unheard=["east"])
    assert f"compare: east {home.domain('north').settings().peers['east'].node_key}" in text


@pytest.mark.nodes
def test_partners_nodes_say_what_they_hold_to_that_partner_only(network: Network) -> None:
    """After a round, east's node is asked under north's key; nobody else gets an answer."""
    plan = counting_plan(network.federation.data("interactions"), "heads for restoring", 0.5, 1)
    network.submit_and_approve(plan)
    network.federation.train(plan, network.home.path / "heads-run")
    url = network.federation.nodes["east"].url + "/heads"
    east, north = (network.home.domain(name).node_key() for name in ("east", "north"))
    body = ask_for_heads(north, public_hex(east))
    answer = requests.post(url, data=body, timeout=120)
    assert {head["domain"] for head in answer.json()["heads"]} == {"north"}
    strangers = network.home.path / "stranger"
    create_domain(Home(strangers), "north", "127.0.0.1", 8199)
    stranger = Home(strangers).domain("north").node_key()
    for bad in (
        ask_for_heads(stranger, public_hex(east)),
        ask_for_heads(north, public_hex(north)),
        body.replace(b"signature", b"signatura"),
        b"[" * 1000,
        b"\xff",
    ):
        assert requests.post(url, data=bad, timeout=120).status_code == 403
    assert requests.post(url, data=b"x" * 5000, timeout=120).status_code == 413


class Killed(BaseException):
    """Where a process would have ended."""


def test_what_a_kill_leaves_is_no_back_up(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed before the ledger, the last part: neither a file of that name nor a copy inside."""
    before = sorted(home.domain("north").path.rglob("*"))

    def killed(path: Path) -> bytes:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("coterie.backup._snapshot", killed)
        with pytest.raises(KeyboardInterrupt):
            back_up(home, "north", tmp_path / "north.tar")
    assert not (tmp_path / "north.tar").exists()
    assert sorted(home.domain("north").path.rglob("*")) == before
    back_up(home, "north", tmp_path / "north.tar")
    with pytest.raises(RestoreRefused, match="exists"):
        back_up(home, "north", tmp_path / "north.tar")
    assert [each.name for each in tmp_path.glob("north.tar*")] == ["north.tar"]


def test_a_restoring_that_was_killed_leaves_the_old_folder_or_the_new(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed at each step that moves something: called again, it finishes, and pins still count."""
    heads = cosigned_by_east(home, tmp_path / "east.json")
    back_up(home, "north", tmp_path / "north.tar")
    folder = home.domain("north")
    peers = folder.settings().peers
    uid, moves = folder.settings().server_uid, 0
    while True:
        moved, left = os.replace, [moves]

        def killed(source: Path, target: Path, moved=moved, left=left) -> None:  # type: ignore[no-untyped-def]
            if not left[0]:
                raise Killed
            left[0] -= 1
            moved(source, target)

        with monkeypatch.context() as patch:
            patch.setattr("os.replace", killed)
            patch.setattr("shutil.rmtree", lambda *_, **__: None)  # a kill cleans nothing up
            try:
                restore(home, "north", tmp_path / "north.tar", heads=[heads])
                break
            except Killed:
                moves += 1
        restore(home, "north", tmp_path / "north.tar", heads=[heads])
        assert folder.settings().peers == peers
        assert folder.settings().server_uid == uid
        assert not list(folder.path.parent.glob(".north.restored"))
    assert moves >= 3


def test_a_file_that_goes_while_it_is_backed_up_is_left_out(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from coterie import backup

    there = list(backup._files(home.domain("north").path))
    gone = home.domain("north").store / "gone.bin"
    monkeypatch.setattr(backup, "_files", lambda folder: iter([*there, gone]))
    back_up(home, "north", tmp_path / "north.tar")
    with tarfile.open(tmp_path / "north.tar") as archive:
        assert "store/gone.bin" not in archive.getnames()


def test_a_snapshot_holds_while_others_write(home: Home, tmp_path: Path) -> None:
    """The copy of a database in use opens by itself, without its write-ahead log."""
    ledger = ledger_of(home, "north")
    ledger.open_budget("others", 1.0, 1e-5)
    back_up(home, "north", tmp_path / "north.tar")
    with tarfile.open(tmp_path / "north.tar") as archive:
        archive.extract("ledger.db", tmp_path, filter="data")
    with sqlite3.connect(tmp_path / "ledger.db") as line:
        assert line.execute("PRAGMA integrity_check").fetchone() == ("ok",)
