"""What a domain says is on its disk first, and what it kept in secret goes from there."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from domains import attempts
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
    """What reached the disk, in order: a file's kind when it was synced, 'charge', 'erase'."""
    found: list[str] = []
    sync, overwrite, charge = attempts._sync, attempts._overwrite, Ledger.charge

    def synced(descriptor: int) -> None:
        found.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")).name.partition(".")[2])
        sync(descriptor)

    def erased(descriptor: int) -> None:
        found.append("erase")
        overwrite(descriptor)

    def charged(self: Ledger, *arguments: Any) -> None:
        found.append("charge")
        charge(self, *arguments)

    monkeypatch.setattr(attempts, "_DISK", Lazy())
    monkeypatch.setattr(attempts, "_sync", synced)
    monkeypatch.setattr(attempts, "_overwrite", erased)
    monkeypatch.setattr(Ledger, "charge", charged)
    return found


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
            folder = ""  # the attempts' folder itself
            if phase == "reveal":
                assert set(happened[:-1]) == {"held", "masked", "receipt", folder}
                assert happened[-1] == "charge"
            if phase == "confirm":
                assert set(happened) == {"confirmed", folder}
            if phase == "unmask":
                assert set(happened[:-1]) == {"unmasking", folder}
                assert happened[-1] == "erase"
        return answers

    assert carried.run(exchange).survivors == NAMES


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
            patch.setattr(attempts.os, "fsync", full)
            with pytest.raises(OSError, match="no space"):
                carried.ask("east", phase, arguments["east"])
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
