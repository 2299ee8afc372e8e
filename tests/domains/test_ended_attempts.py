"""What becomes of an attempt that ended before it was revealed, and of a run that has ended."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from domains.enclosure import EnclosureFailed, EngineOverdue, SumFailed
from domains.refusals import RoundRefused
from network.smpc.coordination import Coordinator
from policies.approvals import owner_key_hex
from policies.ledger import Ledger, LedgerUnavailable
from policies.verify import verify
from tests.domains.participating_domains import NAMES, Carried, Domains, domains_in


def failing(domains: Domains, name: str, error: Exception) -> None:
    """The domain's engine fails when it is asked for a sum; the next one works."""

    def private_sum(*_: Any) -> None:
        raise error

    engine: Any = SimpleNamespace(alive=True, private_sum=private_sum, close=lambda: None)
    domains.parts[name]._open_runs.of(domains.plan.hash)._enclosure = engine


def states(domains: Domains, name: str) -> list[tuple[int, int, str]]:
    found = domains.ledgers[name].attempts(domains.plan.hash)
    return [(release, attempt, state) for _, release, attempt, state in found]


@pytest.mark.parametrize("error", [SumFailed("it ended"), EngineOverdue("it took too long")])
def test_an_attempt_whose_sum_failed_stays_charged(error: Exception, tmp_path: Path) -> None:
    """A graph that fails on one user's data would tell whether she is there, for nothing."""
    domains = domains_in(tmp_path)
    failing(domains, "east", error)
    with pytest.raises(RoundRefused, match=r"it ended|took too long"):
        domains.round()
    assert states(domains, "east") == [(0, 0, "charged")]
    domains.round(attempt=1)


def test_an_attempt_whose_engine_never_started_is_given_back(tmp_path: Path) -> None:
    domains = domains_in(tmp_path)

    def enclosure(*_: Any) -> None:
        raise EnclosureFailed("it didn't start")

    run = domains.parts["east"]._open_runs.of(domains.plan.hash)
    works, run.dataset.enclosure = run.dataset.enclosure, enclosure  # type: ignore[method-assign]
    with pytest.raises(RoundRefused, match="didn't start"):
        domains.round()
    assert states(domains, "east") == [(0, 0, "void")]
    run.dataset.enclosure = works  # type: ignore[method-assign]
    domains.round(attempt=1)


@pytest.mark.parametrize(("write", "state"), [("void", "void"), ("charge", "charged")])
def test_an_end_that_the_ledger_could_not_write_is_written_by_the_next_call(
    write: str, state: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    domains = domains_in(tmp_path)
    carried = Carried(domains)
    coordinator = Coordinator(carried.agreement, carried.exchange)

    def unavailable(*_: Any) -> None:
        raise LedgerUnavailable("no space left")

    if write == "void":
        coordinator.begin()
    with monkeypatch.context() as patch:
        patch.setattr(Ledger, write, unavailable)
        if write == "charge":
            failing(domains, "east", SumFailed("it ended"))
        with pytest.raises(LedgerUnavailable):
            coordinator.begin() if write == "charge" else Carried(domains, 0, 1).run()
    assert states(domains, "east") == [(0, 0, "reserved")]
    with pytest.raises(RoundRefused, match="Start the next attempt"):
        carried.ask("east", "reveal", ())
    domains.round(attempt=1)
    assert states(domains, "east") == [(0, 0, state), (0, 1, "charged")]


class Killed(BaseException):
    """The process ends here, whatever would be done."""


def restarted(domains: Domains, name: str) -> None:
    domains.restart(name)
    domains.open(name)


@pytest.mark.parametrize("error", [SumFailed("it ended"), EngineOverdue("it took too long")])
def test_what_is_to_stay_charged_and_could_not_be_written_is_charged_after_a_restart(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk is full as the engine fails, and the node starts again before it is asked more."""
    domains = domains_in(tmp_path)
    failing(domains, "east", error)

    def unavailable(*_: Any) -> None:
        raise LedgerUnavailable("no space left")

    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "charge", unavailable)
        with pytest.raises(LedgerUnavailable):
            domains.round()
    assert states(domains, "east") == [(0, 0, "reserved")]
    restarted(domains, "east")
    assert states(domains, "east") == [(0, 0, "charged")]
    domains.round(attempt=1)


def test_a_node_killed_in_the_middle_of_its_sum_has_spent_the_attempt(tmp_path: Path) -> None:
    """What the engine did may have killed the machine; whether it did would tell something."""
    domains = domains_in(tmp_path)
    domains.round()
    failing(domains, "east", Killed())  # type: ignore[arg-type]
    with pytest.raises(Killed):
        domains.round(1)
    restarted(domains, "east")
    assert states(domains, "east") == [(0, 0, "charged"), (1, 0, "charged")]
    assert not list((tmp_path / "east").rglob("*.held"))
    domains.round(1, attempt=1)


def test_a_plan_withdrawn_in_the_middle_of_a_sum_has_spent_the_attempt(tmp_path: Path) -> None:
    """Its scientist sees how the engine ends, so that must not be for nothing."""
    domains = domains_in(tmp_path)
    carried = Carried(domains)
    adverts = [carried.ask(name, "advertise", None) for name in NAMES]
    ledger = domains.ledgers["east"]

    def private_sum(*_: Any) -> None:
        ledger.close(domains.plan.hash, "withdrawn", "the scientist")
        raise SumFailed("it ended")

    engine: Any = SimpleNamespace(alive=True, private_sum=private_sum, close=lambda: None)
    domains.parts["east"]._open_runs.of(domains.plan.hash)._enclosure = engine
    with pytest.raises(RoundRefused, match="it ended"):
        carried.ask("east", "share", adverts)
    assert states(domains, "east") == [(0, 0, "charged")]
    verdict = verify(ledger.entries(), owner_key_hex(domains.keys["east"]))
    assert verdict.ok, verdict.text


@pytest.mark.parametrize("kept", [True, False], ids=["kept", "lost"])
def test_a_node_that_stops_once_its_sum_is_made_gets_the_attempt_back_if_that_is_on_its_disk(
    kept: bool, tmp_path: Path
) -> None:
    """It isn't waited for: a power cut may cost a spare attempt, and never gives one away."""
    domains = domains_in(tmp_path)
    for release in range(2):
        carried = Carried(domains, release)
        Coordinator(carried.agreement, carried.exchange).begin()
        (mark,) = (tmp_path / "east").rglob("*.summed")
        if not kept:
            mark.write_bytes(b"")
        restarted(domains, "east")
    found = "void" if kept else "charged"
    assert states(domains, "east") == [(0, 0, found), (1, 0, found)]


@pytest.mark.parametrize("again", [False, True])
def test_a_run_that_has_ended_leaves_no_shares_and_no_vector(again: bool, tmp_path: Path) -> None:
    domains = domains_in(tmp_path)
    domains.round()

    def silent(phase: str, arguments: Any) -> Any:
        return {} if phase == "unmask" else carried.exchange(phase, arguments)

    carried = Carried(domains, 1)
    with pytest.raises(Exception, match="didn't answer"):
        carried.run(silent)
    for name in NAMES:
        if again:
            domains.ledgers[name].close(domains.plan.hash, "revoked")
            domains.restart(name)
        else:
            domains.parts[name].finish(domains.plan.hash, b"")
        left = {each.suffix for each in (tmp_path / name / "attempts").iterdir()}
        assert not left & {".held", ".masked", ".spare", ".summed"}
