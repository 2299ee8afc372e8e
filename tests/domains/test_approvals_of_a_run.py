"""A run goes on only while every signature under its approvals holds, whoever gave it."""

from collections.abc import Mapping
from datetime import datetime, timedelta, tzinfo
from pathlib import Path
from typing import Any

import pytest

from domains.refusals import RoundRefused
from network.smpc.coordination import SumAborted
from policies import approvals
from policies.approvals import owner_key_hex
from policies.ledger import chain
from policies.verify import replay, verify
from tests.domains.participating_domains import Carried, domains_in

PHASES = ["advertise", "share", "reveal", "confirm", "unmask"]


def in_days(days: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on all clocks show this."""

    class Clock(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> "Clock":
            return cls.fromisoformat((datetime.now(tz) + timedelta(days=days)).isoformat())

    for module in (approvals, chain, replay):
        monkeypatch.setattr(module, "datetime", Clock)


def test_a_second_person_s_approval_that_expires_ends_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    domains = domains_in(tmp_path, second={"north": 2})
    domains.round()
    in_days(3, monkeypatch)
    north, plan_hash = domains.parts["north"], domains.plan.hash
    with pytest.raises(RoundRefused, match="north: this approval expired at"):
        north.advertise(plan_hash, "s", 1, 0)
    with pytest.raises(RoundRefused, match="north: this approval expired at"):
        domains.open("north")
    with pytest.raises((SumAborted, RoundRefused), match="expired"):
        domains.round(1)
    assert [state for *_, state in domains.ledgers["north"].attempts(plan_hash)] == ["charged"]


def test_no_message_of_a_round_passes_after_a_second_person_s_approval_expired(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    carried, refused = Carried(domains_in(tmp_path, second={"south": 2})), []

    def exchange(phase: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        in_days(3, monkeypatch)
        with pytest.raises(RoundRefused, match="south: this approval expired at"):
            carried.ask("south", phase, arguments["south"])
        refused.append(phase)
        in_days(0, monkeypatch)
        return carried.exchange(phase, arguments)

    carried.run(exchange)
    assert refused == PHASES


def test_a_ledger_that_went_on_without_the_second_person_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    domains = domains_in(tmp_path, second={"north": 2})
    ledger, event = domains.ledgers["north"], domains.plan.steps[0].event(1)
    key = owner_key_hex(domains.keys["north"])
    ledger.reserve(domains.plan.hash, "s", 0, 0, event)
    assert verify(ledger.entries(), key).ok
    in_days(3, monkeypatch)
    ledger.reserve(domains.plan.hash, "s", 1, 0, event)
    verdict = verify(ledger.entries(), key)
    assert "the approval had expired" in verdict.problem
    assert verdict.first_bad == ledger.head()[0]


def test_a_run_that_is_revoked_in_the_middle_of_a_round_sends_nothing_more(tmp_path: Path) -> None:
    domains = domains_in(tmp_path)
    carried, ledger = Carried(domains), domains.ledgers["south"]

    def exchange(phase: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        if phase == "reveal":
            ledger.close(domains.plan.hash, "revoked by her: no more", "her")
        return carried.exchange(phase, arguments)

    with pytest.raises((SumAborted, RoundRefused), match="revoked by her: no more"):
        carried.run(exchange)
    (state,) = [state for *_, state in ledger.attempts(domains.plan.hash)]
    assert state == "charged", "an engine may have been at work, and how that ends be seen"
