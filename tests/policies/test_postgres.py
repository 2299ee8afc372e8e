"""The ledger on Postgres: the same specification and guards, one budget for many processes."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from policies.accounting import Event
from policies.approvals import owner_key_hex
from policies.ledger import Ledger, LedgerUnavailable
from policies.verify import verify
from tests.policies import postgres
from tests.policies.one_ledger import (
    DELTA,
    NODE_KEY,
    OWNER,
    ROUND,
    approved,
    node_key_hex,
    plan,
    release,
    submit,
)
from tests.policies.test_ledger import (  # noqa: F401 - run here on Postgres
    test_a_denial_is_final_but_a_refusal_may_be_cured,
    test_a_plan_goes_from_unknown_to_closed,
    test_a_release_is_reserved_then_charged,
    test_an_attempt_is_never_repeated_under_its_number,
    test_charged_attempts_use_up_the_spare_ones_and_voided_ones_do_not,
    test_closing_voids_what_is_open_so_that_it_can_never_be_sent,
    test_entries_are_chained_and_can_be_read_from_anywhere,
    test_nothing_is_charged_or_voided_without_an_open_reservation,
    test_one_attempt_sends_one_share,
    test_only_what_was_approved_is_released,
    test_repeating_a_step_of_the_way_adds_nothing,
    test_the_record_tells_who_decided_and_why,
)
from tests.policies.test_ledger_budgets import (  # noqa: F401 - run here on Postgres
    test_a_lowered_cap_stops_running_plans_when_they_reach_it,
    test_a_plan_that_does_not_fit_beside_the_others_is_not_approved,
    test_a_public_population_is_recorded_but_not_limited,
    test_an_approved_plan_holds_its_whole_cost_until_it_closes,
)
from tests.policies.test_ledger_crashes import (  # noqa: F401 - run here on Postgres
    test_threads_of_one_node_race_for_one_attempt_and_one_wins,
)

pytestmark = pytest.mark.skipif(postgres.programs() is None, reason=postgres.MISSING)


@pytest.fixture
def url(postgres_server: str) -> str:
    return postgres.new_database(postgres_server)


def open_ledger(url: str) -> Ledger:
    return Ledger(url, "alpha", Ed25519PrivateKey.from_private_bytes(NODE_KEY))


@pytest.fixture
def ledger(url: str) -> Iterator[Ledger]:
    opened = open_ledger(url)
    opened.open_budget("shoppers", 8.0, DELTA)
    yield opened
    assert verify(url, node_key_hex(), owner_key_hex(OWNER)).problem == ""
    opened.dispose()


@pytest.mark.parametrize("table", ["ledgerentry", "ledgercosignature", "ledgerpeerhead"])
def test_what_was_written_can_not_be_changed_by_mistake(ledger: Ledger, table: str) -> None:
    key = "ab" * 32
    rows = {
        "ledgercosignature": f"(1, '{key}', 'b', '', '', '')",
        "ledgerpeerhead": f"('{key}', 1, 'b', '', '', '', '', false)",
    }
    engine = ledger._database.write_engine
    changes = [f"DELETE FROM {table}", f"TRUNCATE {table}"]
    changes.append(f"UPDATE {table} SET {'body' if table == 'ledgerentry' else 'root'} = 'x'")
    for change in changes:
        with engine.connect() as connection:
            if table in rows:
                connection.exec_driver_sql(f"INSERT INTO {table} VALUES {rows[table]}")
            with pytest.raises(sqlalchemy.exc.DBAPIError, match=f"{table} only grows"):
                connection.exec_driver_sql(change)


def test_a_commit_waits_for_the_disk_whatever_the_server_is_set_to(ledger: Ledger) -> None:
    with ledger._database.write_engine.connect() as connection:
        connection.exec_driver_sql("SET synchronous_commit = off")
        found = connection.exec_driver_sql("SHOW synchronous_commit").scalar_one()
        connection.rollback()
    assert found == "off", "the session's own setting"
    with ledger._database.writing() as connection:
        shown = connection.exec_driver_sql("SHOW synchronous_commit").scalar_one()
    assert shown == "on"


@pytest.mark.parametrize("level", ["repeatable read", "serializable"])
def test_writers_take_turns_whatever_the_server_s_isolation_is(url: str, level: str) -> None:
    name = sqlalchemy.make_url(url).database
    first = open_ledger(url)
    first.open_budget("shoppers", 8.0, DELTA)
    with first._database.write_engine.begin() as connection:
        connection.exec_driver_sql(
            f"ALTER DATABASE \"{name}\" SET default_transaction_isolation = '{level}'"
        )
    first.dispose()
    ledger = open_ledger(url)
    plans = [plan(number) for number in range(8)]
    with ThreadPoolExecutor(8) as pool:
        for done in [pool.submit(submit, ledger, each, ROUND) for each in plans]:
            done.result()
    assert len(ledger.plans()) == 8
    ledger.dispose()
    assert verify(url, node_key_hex()).problem == ""


def test_tampering_with_a_table_is_found_through_the_address(ledger: Ledger, url: str) -> None:
    mine = approved(ledger, 1, Event(4.0, 1.0, 3))
    release(ledger, mine, 0)
    engine = ledger._database.write_engine
    for change, undo in (
        ("UPDATE ledgerbudget SET epsilon = 80", "UPDATE ledgerbudget SET epsilon = 8"),
        ("UPDATE ledgerattempt SET state = 'void'", "UPDATE ledgerattempt SET state = 'charged'"),
    ):
        for statement, ok in ((change, False), (undo, True)):
            with engine.begin() as connection:
                connection.exec_driver_sql(statement)
            assert verify(url, node_key_hex()).ok == ok


def test_a_server_that_is_away_means_that_nothing_leaves() -> None:
    with postgres.running_postgres() as server:
        ledger = open_ledger(postgres.new_database(server))
        ledger.open_budget("shoppers", 8.0, DELTA)
        mine = approved(ledger, 1, Event(4.0, 1.0, 3))
    with pytest.raises(LedgerUnavailable, match="nothing may leave") as error:
        ledger.reserve(mine, "train", 0, 0, ROUND)
    assert "password" not in str(error.value).lower()
    with pytest.raises(LedgerUnavailable):
        ledger.budget("shoppers")
