"""A domain's folder: private, made once, written in one step."""

import stat
from pathlib import Path

import pytest

from domains.folder import DomainFolder, FolderError, create_folder, write_private


def made(path: Path) -> DomainFolder:
    return create_folder(path / "north", "north", "ab" * 32, "a password", "127.0.0.1", 8101)


def test_nobody_else_may_read_a_new_folder(tmp_path: Path) -> None:
    folder = made(tmp_path)
    for path in (folder.path, *folder.path.rglob("*")):
        expected = 0o700 if path.is_dir() else 0o600
        assert stat.S_IMODE(path.stat().st_mode) == expected, path


def test_every_domain_has_a_key_and_an_id_of_its_own(tmp_path: Path) -> None:
    first, second = made(tmp_path / "one"), made(tmp_path / "two")
    assert first.node_key_hex() != second.node_key_hex()
    assert first.settings().server_uid != second.settings().server_uid


def test_a_folder_is_never_made_over_another(tmp_path: Path) -> None:
    key = made(tmp_path).node_key_hex()
    with pytest.raises(FolderError, match="exists already"):
        made(tmp_path)
    assert DomainFolder(tmp_path / "north").node_key_hex() == key


@pytest.mark.parametrize("name", ["", "North", "../up", "a" * 33, "1st", "a b", "é"])
def test_a_name_is_short_and_plain(tmp_path: Path, name: str) -> None:
    with pytest.raises(FolderError, match="is not a name"):
        create_folder(tmp_path / "x", name, "ab" * 32, "p", "127.0.0.1", 8101)
    assert not (tmp_path / "x").exists()


def test_settings_say_what_is_wrong_with_them(tmp_path: Path) -> None:
    with pytest.raises(FolderError, match="coterie domain init west"):
        DomainFolder(tmp_path / "west").settings()
    folder = made(tmp_path)
    folder.settings_file.write_text(folder.settings_file.read_text().replace("8101", "99999"))
    with pytest.raises(FolderError, match="port"):
        folder.settings()


def test_a_private_file_is_replaced_whole(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    write_private(file, "old")
    write_private(file, "new")
    assert file.read_text() == "new"
    assert [p.name for p in tmp_path.iterdir()] == ["secret"]


def test_the_owners_account_has_a_key_of_its_own_except_in_older_folders(tmp_path: Path) -> None:
    folder = made(tmp_path)
    assert folder.owner_account_key_hex() != folder.node_key_hex()
    (folder.syft / "owner-account.key").unlink()
    assert folder.owner_account_key_hex() == folder.node_key_hex()


@pytest.mark.parametrize(
    "text",
    [
        "a = " + "[" * 100_000, "[[peers]]\nx = 1", "port = 99999999999999999999", "\x00",
        "a.b.c = 1",
        'name = "north"\npassword = "hunter2"', "port = nan", "peers = {north = {node_key = 1}}",
        "name = 'no\\u0000rth'", "x = 1979-05-27T07:32:00Z", "[" + "a." * 20_000 + "b]",
    ],
    ids=lambda text: ascii(text)[:30],
)  # fmt: skip
def test_hostile_settings_are_refused_in_a_sentence_without_their_values(
    text: str, tmp_path: Path
) -> None:
    folder = made(tmp_path)
    folder.settings_file.write_text(text)
    with pytest.raises(FolderError, match="can't be read") as refused:
        folder.settings()
    assert "hunter2" not in str(refused.value)
    assert len(str(refused.value)) < 2000
    folder.settings_file.write_bytes(b"\xff\xfe")
    with pytest.raises(FolderError, match="can't be read"):
        folder.settings()
