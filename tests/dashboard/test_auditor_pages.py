"""What an auditor's pages make of the ledgers' counts, and how an entry's proof is checked."""

import json
from pathlib import Path
from typing import Any

import pytest

from coterie.auditor import Cosigned, DomainAlert, DomainAudit, Overview
from coterie.report import network_report
from dashboard.cosigned import cells, matrix
from dashboard.entries import check, facts, rows, span
from dashboard.ledgers import alerts, verdicts
from dashboard.network import picture, with_known
from dashboard.network import rows as network_rows
from dashboard.report import as_json
from dashboard.spending import daily, dots, gauges, growth, monthly, spent
from dashboard.times import moment
from policies.accounting import ADJACENCY
from policies.alerts import Alert
from policies.verify import Verdict
from tests.policies.ledgers_of_domains import Domain, a_round

TIME = "2026-11-28T08:00:00+00:00"


def answer(
    entries: int, held: list[dict[str, Any]] | None = None, key: str = "k"
) -> dict[str, Any]:
    budget = {
        "population": "shoppers", "epsilon": 8.0, "delta": 1e-5, "public": False, "spent": 2.0,
        "held": 3.0, "remaining": 5.0, "everywhere": 4.0, "releases": 7,
    }  # fmt: skip
    return {
        "counts": {"entries": entries, "head": "h" * 64, "time": TIME,
                   "kinds": {"release": 7}, "plans": {"closed": 2}},
        "budgets": [budget, {**budget, "population": "open", "public": True, "epsilon": None}],
        "cosigned": {"signed": [], "held": held or []},
        "months": [
            {"key": "2026-11", "population": "shoppers", "delta": 1e-5, "epsilon": 2.0,
             "releases": 7, "cumulative": 2.0},
            {"key": "2026-11", "population": "open", "delta": 1e-5, "epsilon": None,
             "releases": 7, "cumulative": None},
        ],
        "days": [["2026-11-28", "approval", 2], ["2026-11-28", "charge", 7]],
        "node_key": key,
    }  # fmt: skip


def audited(name: str, verdict: Verdict, entries: int = 10) -> DomainAudit:
    budget = answer(1)["budgets"][0]
    return DomainAudit(name, "http://x", "k" * 64, "o" * 64, entries, "h" * 64, verdict, (budget,),
                       {"closed": 2}, {"release": 7})  # fmt: skip


GOOD = Verdict(True, 10, None, "", {"shoppers": 2.0}, "complete", True)
BAD = Verdict(False, 3, 4, "the signature isn't the node's", {}, "BAD: entry 4: the signature")
ALERT = DomainAlert("east", Alert("spend rate", "shoppers", "<script>alert(1)</script>", (4, 5)))
FOUND = Overview(
    (audited("east", BAD), audited("north", GOOD)),
    (Cosigned("east", "north", 8, 10, TIME),),
    (ALERT,),
    {"south": "it does not answer"},
)


def test_a_verdict_is_the_auditors_own_and_says_how_old_it_is() -> None:
    answers = {"north": answer(12), "east": answer(10)}
    assert set(verdicts(answers, None)["your verdict"]) == {"Not verified in this session."}
    east, north = verdicts(answers, FOUND).to_dict("records")
    assert east["your verdict"] == "BAD: the signature isn't the node's"
    assert (east["first bad entry"], north["first bad entry"]) == ("4", "")
    assert north["your verdict"] == "complete (2 newer entries since)"


def test_budgets_and_months_leave_out_what_is_public() -> None:
    answers = {"north": answer(12)}
    (row,) = spent(answers).to_dict("records")
    assert (row["epsilon spent"], row["epsilon held"], row["delta"]) == (2.0, 3.0, "1e-05")
    (month,) = monthly(answers).to_dict("records")
    assert month["epsilon up to its end"] == 2.0
    (day,) = daily(answers).to_dict("records")
    assert (day["kind"], day["how many"]) == ("approval", 2)
    for drawn in (gauges(spent(answers)), growth(monthly(answers)), dots(daily(answers))):
        assert drawn.to_dict()


def test_the_matrix_goes_by_what_the_peers_hold() -> None:
    held = [{"node_key": "n", "size": 8, "time": TIME, "domain": "north", "count": 3}]
    longer = [{**held[0], "node_key": "e", "size": 99}]
    answers = {"north": answer(12, longer, "n"), "east": answer(10, held, "e"),
               "south": answer(5, [], "s")}  # fmt: skip
    frame = matrix(answers)
    found = {(r["ledger of"], r["held by"]): r for r in frame.to_dict("records")}
    assert len(found) == 6
    assert found["north", "east"]["up to entry"] == 8
    assert found["north", "east"]["entries after it"] == 4
    assert found["east", "north"]["state"] == "longer than the ledger itself"
    assert found["south", "east"]["state"] == "never"
    assert cells(frame).to_dict()


@pytest.mark.parametrize(
    ("when", "between"),
    [
        ("2026-11", ("2026-11-01", "2026-12-01")),
        ("2026-12-31", ("2026-12-31", "2027-01-01")),
        ("", ("", "")),
        ("soon", ("", "")),
        ("DROP", ("", "")),
    ],
)
def test_a_month_or_day_in_the_address_becomes_a_span(when: str, between: tuple[str, str]) -> None:
    assert span(when) == between


def test_an_entrys_proof_is_checked_here_against_the_pinned_key(tmp_path: Path) -> None:
    north, south = Domain.create("north", tmp_path), Domain.create("south", tmp_path)
    a_round(north, south, 0)
    proof = json.loads(json.dumps(north.ledger.prove(2)))
    assert check(proof, north.node_key).ok
    assert "isn't signed" in check(proof, south.node_key).problem
    proof["entry"]["body"] = proof["entry"]["body"].replace("shoppers", "nobody")
    assert "isn't under" in check(proof, north.node_key).problem
    said = facts({"proof": proof, "witnesses": []})
    assert "no peer yet" in set(said["value"])
    (row,) = rows([{"index": 2, "kind": "budget", "hash": "h", "body": proof["entry"]["body"]}]
                  ).to_dict("records")  # fmt: skip
    assert row["entry"] == 2
    for domain in (north, south):
        domain.ledger.dispose()


def test_the_newest_cosignatures_are_counted_by_the_database(tmp_path: Path) -> None:
    north, south = Domain.create("north", tmp_path), Domain.create("south", tmp_path)
    for number in range(3):
        a_round(north, south, number)
        (signed,) = south.ledger.heads.cosignatures([north.node_key])
        north.ledger.heads.keep(signed, "south", south.node_key)
    (mine,) = north.ledger.overview.cosigned()["signed"]
    (theirs,) = south.ledger.overview.cosigned()["held"]
    assert (mine["witness"], mine["size"], mine["count"]) == ("south", 7, 3)
    assert (theirs["node_key"], theirs["size"], theirs["count"]) == (north.node_key, 7, 3)
    for domain in (north, south):
        domain.ledger.dispose()


def test_the_report_has_every_verdict_and_figure_with_its_unit_and_runs_nothing() -> None:
    page = network_report(FOUND, "eve@audit.example", "2026-11-28 08:00:00")
    for said in ("BAD: entry 4", "complete", "south could not be read", ADJACENCY, "eve@audit"):
        assert said in page
    assert "<script" not in page
    assert page.count("ε = 2.000") == 2
    kept = json.loads(as_json(FOUND, "eve@audit.example", "2026-11-28 08:00:00"))
    assert kept["domains"][0]["verdict"]["first_bad"] == 4
    assert kept["adjacency"] == ADJACENCY
    assert alerts(FOUND)["from entries"].tolist() == ["4, 5"]


def test_the_map_shows_who_is_down_and_who_last_saw_them() -> None:
    peer = {"domain": "south", "time": TIME}
    found: dict[str, dict[str, Any]] = {
        "north": {"state": "up", "version": "0.1.0", "rounds": 7, "plans": 2, "peers": [peer]},
        "east": {"state": "down"},
    }
    known = with_known(found, {"east": "2026-11-27 08:00:00"}, {"north": "2026-11-28 09:00:00"})
    frame = network_rows(known)
    assert frame["state"].tolist() == ["down", "up", "not signed in"]
    assert frame["last seen"].map(moment).tolist() == [
        "2026-11-27 08:00 UTC", "2026-11-28 09:00 UTC", "2026-11-28 08:00 UTC",
    ]  # fmt: skip
    assert frame["seen by"].tolist()[2] == "a partner, in a round"
    drawn = json.dumps(picture(frame).to_dict(), ensure_ascii=False)
    for sign in "✓✗?":
        assert sign in drawn
    assert picture(network_rows({"east": {"state": "down", "last": "", "by": "here"}})).to_dict()
