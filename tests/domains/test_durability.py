"""What a domain says is on its disk first, and what it kept in secret goes from there."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from domains import attempts
from network.smpc.aggregation import OutOfTurn
from network.smpc.attempt import Context
from network.smpc.coordination import Coordinator
from network.smpc.messages import SharingRefused
from policies.ledger import HeadRefused, Ledger
from tests.domains.participating_domains import NAMES, Carried, domains_in


class Lazy:
    """Does nothing before it is waited for: what isn't waited for never reaches the disk."""

    def submit(self, work: Callable[..., None], *arguments: Any) -> "Lazy":
        promised = Lazy()
        promised.result = lambda: work(*arguments)  # type: ignore[method-assign]
        return promised

    def result(self) -> None:
        raise NotImplementedError


@pytest.fixture
def happened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What reached the disk, in order: the kind of a file, 'folder', 'charge' or 'erase'."""
    found: list[str] = []
    sync, overwrite, charge = attempts._sync, attempts._overwrite, Ledger.charge
    sync_folder = attempts._sync_folder

    def synced(descriptor: int) -> None:
        found.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")).name.partition(".")[2])
        sync(descriptor)

    def folder_synced(path: Path) -> None:
        found.append("folder")
        sync_folder(path)

    def erased(descriptor: int) -> None:
        found.append("erase")
        overwrite(descriptor)

    def charged(self: Ledger, *arguments: Any) -> None:
        found.append("charge")
        charge(self, *arguments)

    monkeypatch.setattr(attempts, "_DISK", Lazy())
    monkeypatch.setattr(attempts, "_sync", synced)
    monkeypatch.setattr(attempts, "_sync_folder", folder_synced)
    monkeypatch.setattr(attempts, "_overwrite", erased)
    monkeypatch.setattr(Ledger, "charge", charged)
    return found


def open_files(folder: Path) -> list[str]:
    """The files under a folder that this process has open."""
    links = Path("/proc/self/fd").iterdir()
    return [link for each in links if (link := readlink(each)).startswith(f"{folder}/")]


def readlink(path: Path) -> str:
    try:
        return os.readlink(path)
    except FileNotFoundError:
        return ""


@pytest.fixture(params=[0, 2**16], ids=["in another thread", "by who waits"])
def synced(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is synced by another thread, as long answers are, or not, as short ones are."""
    monkeypatch.setattr(attempts, "_LONG_BYTES", request.param)


@pytest.mark.usefixtures("synced")
def test_nothing_is_charged_said_or_erased_before_the_answer_is_on_the_disk(
    tmp_path: Path, happened: list[str]
) -> None:
    domains = domains_in(tmp_path)
    carried = Carried(domains)

    def exchange(phase: str, arguments: Any) -> dict[str, Any]:
        answers = {}
        for name, argument in arguments.items():
            happened.clear()
            answers[name] = carried.ask(name, phase, argument)
            if phase == "reveal":
                assert set(happened[:-1]) == {"held", "masked", "receipt", "folder"}
                assert happened[-1] == "charge"
            if phase == "confirm":
                assert set(happened) == {"confirmed", "folder"}
            if phase == "unmask":
                assert set(happened[:-1]) == {"unmasking", "folder"}
                assert happened[-1] == "erase"
        return answers

    assert carried.run(exchange).survivors == NAMES


@pytest.mark.usefixtures("synced")
def test_an_answer_that_the_disk_refused_is_never_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    domains = domains_in(tmp_path)
    carried = Carried(domains)

    def full(_: int) -> None:
        raise OSError("no space left on device")

    def exchange(phase: str, arguments: Any) -> dict[str, Any]:
        if phase != "reveal":
            return carried.exchange(phase, arguments)
        with monkeypatch.context() as patch:
            patch.setattr(attempts.os, "fdatasync", full)
            with pytest.raises(OSError, match="no space"):
                carried.ask("east", phase, arguments["east"])
        with pytest.raises(OutOfTurn, match="Start the next attempt"):
            carried.ask("east", phase, arguments["east"])
        answers = ".held", ".masked", ".receipt"
        assert not [each for each in open_files(tmp_path) if any(name in each for name in answers)]
        plan = domains.plan.hash
        assert domains.ledgers["east"].attempt(plan, "s", 0, 0) == "reserved"
        raise SharingRefused("east", "its disk is full")

    with pytest.raises(SharingRefused):
        carried.run(exchange)
    domains.restart("east")
    assert domains.ledgers["east"].attempt(domains.plan.hash, "s", 0, 0) == "void"
    assert not list((tmp_path / "east" / "attempts").glob("*.held"))


def test_what_a_peer_showed_is_held_against_it_even_if_nothing_was_masked(tmp_path: Path) -> None:
    domains = domains_in(tmp_path)
    carried = Carried(domains)

    def exchange(phase: str, arguments: Any) -> dict[str, Any]:
        if phase != "reveal":
            return carried.exchange(phase, arguments)
        twice = [*arguments["east"], arguments["east"][0]]
        with pytest.raises(SharingRefused):
            carried.ask("east", phase, twice)
        return {}

    with pytest.raises(Exception, match="didn't answer"):
        carried.run(exchange)
    north = domains.ledgers["north"].heads.head()
    keys = {entry.name: entry.node_key for entry in domains.plan.roster}
    assert domains.ledgers["east"].heads.held([keys["north"]]) == {keys["north"]: [north.size]}


def test_nothing_is_opened_before_the_peers_co_signed(tmp_path: Path) -> None:
    domains = domains_in(tmp_path)
    carried = Carried(domains)

    def exchange(phase: str, arguments: Any) -> dict[str, Any]:
        if phase != "unmask":
            return carried.exchange(phase, arguments)
        north = carried.signed["north"]
        carried.signed["north"] = [each.model_copy(update={"root": "0" * 64}) for each in north]
        with pytest.raises(HeadRefused, match="co-signature"):
            carried.ask("east", phase, arguments["east"])
        carried.signed["north"] = north
        return carried.exchange(phase, arguments)

    assert carried.run(exchange).survivors == NAMES


def test_a_run_s_next_vector_takes_the_place_of_the_last_on_the_disk(tmp_path: Path) -> None:
    domains = domains_in(tmp_path)
    places = set()
    for release in range(3):
        domains.round(release)
        (masked,) = (tmp_path / "east" / "attempts").glob("*.masked")
        places.add(masked.stat().st_ino)
    assert len(places) == 1
    assert not list(tmp_path.rglob("*.spare"))


def files_of(folder: Path, attempt: int) -> attempts.AttemptFiles:
    return attempts.AttemptFiles(folder, Context("a" * 64, "s", 0, attempt))


def test_nothing_of_a_longer_vector_is_left_in_a_shorter_one_s_file(tmp_path: Path) -> None:
    with files_of(tmp_path, 0) as first:
        first.write("masked", b"long" * 100)
    first.give_up()
    assert first.read("masked") is None
    with files_of(tmp_path, 1) as second:
        second.write("masked", b"short")
    assert second.read("masked") == b"short"
    assert first.read("masked") is None


def test_a_vector_that_an_answer_may_still_carry_is_not_written_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attempts, "_MAPPED_BYTES", 3)
    with files_of(tmp_path, 0) as first:
        first.write("masked", b"first")
    carried = first.read("masked")
    first.give_up()
    with files_of(tmp_path, 1) as second:
        second.write("masked", b"other")
    assert bytes(carried or b"") == b"first"


def test_what_a_killed_process_left_to_be_written_over_is_gone(tmp_path: Path) -> None:
    domains = domains_in(tmp_path)
    domains.round()
    following = Carried(domains, 1)
    Coordinator(following.agreement, following.exchange).begin()
    assert list((tmp_path / "east").rglob("*.spare"))
    domains.restart("east")
    assert not list((tmp_path / "east").rglob("*.spare"))
