"""`kill -9` while an owner adds a data set: it is there whole, or not at all."""

import os
import tarfile
from pathlib import Path

import pytest

from coterie.backup import back_up
from coterie.home import Home
from coterie.partners import add_data, create_domain
from domains.dataset import load_datasets
from domains.folder import DomainFolder, FolderError

ROWS = "user,item\nu,a\nv,b\n"


@pytest.fixture
def folder(tmp_path: Path) -> DomainFolder:
    home = Home(tmp_path / "home")
    create_domain(home, "north", "127.0.0.1", 8199)
    (tmp_path / "items.txt").write_text("a\nb\n")
    (tmp_path / "rows.csv").write_text(ROWS)
    return home.domain("north")


def add(folder: DomainFolder, beside: Path, name: str) -> None:
    add_data(
        folder,
        file=beside / "rows.csv",
        catalogue=beside / "items.txt",
        dataset=name,
        population="viewers",
        users=100,
        interactions_per_user=4,
        holdout=None,
        epsilon=5.0,
        public=False,
    )


class Killed(BaseException):
    """Where a process would have ended."""


def added_until(folder: DomainFolder, beside: Path, steps: int) -> bool:
    """Add 'coming' as a process does that is killed before its file operation `steps`.

    Nothing is cleaned up then; gives whether it came to that.
    """
    left = steps

    def stepped(operation):  # type: ignore[no-untyped-def]
        def step(*args, **kwargs):  # type: ignore[no-untyped-def]
            nonlocal left
            if left == 0:
                raise Killed
            left -= 1
            return operation(*args, **kwargs)

        return step

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.open", stepped(os.open))
        patch.setattr("os.replace", stepped(os.replace))
        patch.setattr("shutil.rmtree", lambda *_, **__: None)
        try:
            add(folder, beside, "coming")
        except Killed:
            return True
    return False


def test_a_killed_adding_leaves_nothing_and_what_was_there_stays(
    folder: DomainFolder, tmp_path: Path
) -> None:
    """At each of its file operations; the next start sees no half data set and cleans up."""
    add(folder, tmp_path, "old")
    steps, half = 0, 0
    while added_until(folder, tmp_path, steps):
        if list(folder.datasets.glob(".coming*/data/*")) and not half:
            half = steps
            held = backed_up(folder, tmp_path / "north.tar", without="old")
            assert ROWS.encode() not in held
        assert list(load_datasets(folder)) == ["old"], steps
        assert [each.name for each in folder.datasets.iterdir()] == ["old"], "nothing is left"
        steps += 1
    assert 0 < half < steps
    assert sorted(load_datasets(folder)) == ["coming", "old"]
    with pytest.raises(FolderError, match="already"):
        add(folder, tmp_path, "coming")


def backed_up(folder: DomainFolder, out: Path, *, without: str) -> bytes:
    """What a back-up holds of data sets' files, beside those of one of them."""
    back_up(Home(folder.path.parents[1]), folder.path.name, out)
    with tarfile.open(out) as archive:
        names = [n for n in archive.getnames() if n.startswith("datasets/")]
        files = [archive.extractfile(n) for n in names if f"/{without}/" not in n]
        return b"".join(file.read() for file in files if file is not None)
