"""What a peer's ledger says it opened is what was opened here, or no further round goes on."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from domains.refusals import RoundRefused
from network.smpc.coordination import SumAborted
from policies.alerts import alerts
from policies.approvals import owner_key_hex
from policies.canonical import canonical, sha256_hex
from policies.ledger import HeadRefused
from policies.verify import verify
from tests.domains.participating_domains import NAMES, Carried, Domains, domains_in

Refused = (SumAborted, RoundRefused, HeadRefused)


@pytest.fixture
def domains(tmp_path: Path) -> Domains:
    return domains_in(tmp_path)


def lying(domains: Domains, monkeypatch: pytest.MonkeyPatch, change: Any) -> None:
    """From now on north's ledger records what `change` makes of what it helped to open."""
    ledger = domains.ledgers["north"]
    settle = ledger.settle

    def lie(plan: str, step: str, release: int, attempt: int, _: str, opened: Any) -> None:
        said = change(dict(opened))
        if said is not None:
            settle(plan, step, release, attempt, sha256_hex(canonical(said)), said)

    monkeypatch.setattr(ledger, "settle", lie)


def objections(domains: Domains, name: str) -> list[str]:
    found = domains.ledgers[name].entries()
    return [json.loads(each.body)["reason"] for each in found if each.kind == "objection"]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda said: said | {"east": "0" * 64}, "opened other inputs"),
        (lambda said: {n: d for n, d in said.items() if n != "east"}, "opened other inputs"),
        (lambda said: None, "doesn't show that it opened attempt 0 of s/0"),
    ],
    ids=["another input", "an input fewer", "nothing at all"],
)
def test_a_peer_whose_ledger_says_another_total_was_opened_is_refused(
    change: Any, why: str, domains: Domains, monkeypatch: pytest.MonkeyPatch
) -> None:
    lying(domains, monkeypatch, change)
    domains.round()
    for attempt in range(2):
        with pytest.raises(Refused, match=why):
            domains.round(1, attempt)
    ledger = domains.ledgers["east"]
    states = [state for _, at, _, state in ledger.attempts(domains.plan.hash) if at == 1]
    assert "charged" not in states
    (said,) = objections(domains, "east")
    assert "north" in said
    (alert,) = [
        each
        for each in alerts(ledger.entries(), datetime.now(UTC))
        if each.kind == "partner refused"
    ]
    assert (alert.population, said in alert.message) == ("shoppers", True)
    verdict = verify(ledger.entries(), owner_key_hex(domains.keys["east"]))
    assert verdict.ok, verdict.text


def test_a_peer_that_opens_an_input_that_was_never_charged_is_refused(domains: Domains) -> None:
    north, plan_hash = domains.ledgers["north"], domains.plan.hash
    domains.round()
    event = domains.plan.steps[0].event(1)
    north.reserve(plan_hash, "s", 3, 0, event)
    share = "5" * 64
    north.charge(plan_hash, "s", 3, 0, sha256_hex(bytes.fromhex(share)))
    said = {"north": share, "east": "6" * 64}
    north.settle(plan_hash, "s", 3, 0, sha256_hex(canonical(said)), said)
    with pytest.raises(Refused, match="attempt 0 of s/3 opened other inputs"):
        domains.round(1)


def test_honest_peers_go_on_after_restarts_and_repeated_attempts(domains: Domains) -> None:
    domains.round()
    carried = Carried(domains, 1)

    def exchange(phase: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        if phase == "unmask":
            raise SumAborted("south", phase, "cut off")
        return carried.exchange(phase, arguments)

    with pytest.raises(SumAborted):
        carried.run(exchange)
    assert domains.round(1, attempt=1).survivors == NAMES
    domains.restart("south")
    domains.open("south")
    for release in (2, 3):
        domains.round(release)
    assert [objections(domains, name) for name in NAMES] == [[]] * 3
