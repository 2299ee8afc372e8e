"""What nodes say in English is said in every language, with every figure and name it has."""

from datetime import UTC, datetime, time

import pytest

from dashboard.told import in_language, told_refusal
from policies.accounting import Event, RenyiFilter
from policies.alerts import Alert, unsigned_heads
from policies.limits import limits_of
from policies.owner_policy import OfficeHours, OwnerPolicy, PlanFacts
from tests.dashboard.visiting import said_in_chinese
from tests.policies.test_alerts import Book

NOW = datetime(2026, 11, 28, tzinfo=UTC)
STRICT = OwnerPolicy(
    epsilon=1.0, delta=1e-6, max_releases=2, min_noise_multiplier=5.0, min_users=1000,
    allowed_operations=("aten.add",), allowed_models=("ab" * 32,),
    max_epsilon_per_scientist=0.1, max_epsilon_per_dataset=0.1, max_epsilon_per_period=0.1,
    office_hours=OfficeHours(opens=time(3), closes=time(4)),
)  # fmt: skip
NOISY = (Event(1.0, 1.0, 9),)
FACTS = PlanFacts.of(
    NOISY, 1e-5, 100, False, frozenset({"aten.mul.Tensor"}), "cd" * 32, "ef" * 32, "spu"
)


def chinese(line: str) -> str:
    return in_language(line, "zh")


def test_every_rule_of_an_owner_refuses_in_the_readers_language() -> None:
    broken = [*STRICT.check(FACTS), STRICT.closed(NOW)]
    broken += OwnerPolicy().check(PlanFacts.of(NOISY, 1e-5, 100, public=True))
    assert {each.rule for each in broken if each} == {
        "delta", "max_releases", "max_epsilon_per_plan", "public", "min_noise_multiplier",
        "min_users", "allowed_operations", "allowed_models", "dealers", "comparisons",
        "office_hours",
    }  # fmt: skip
    said_in_chinese((each.message for each in broken if each), chinese)


def test_every_limit_refuses_in_the_readers_language_line_by_line() -> None:
    accountant = RenyiFilter.of_cap(STRICT.epsilon, STRICT.delta)
    limits = limits_of(STRICT, (), "shoppers", "ada", "orders", accountant, NOW)
    refused = [limit.check(NOISY, 3) for limit in limits]
    assert len(refused) == 4
    said_in_chinese(
        (line for each in refused if each for line in each.message.split("\n")), chinese
    )


def test_every_alert_is_told_in_the_readers_language() -> None:
    found = [*_alerts(), *_unsigned()]
    assert {each.kind for each in found} == {
        "spend rate", "near-duplicate plans", "same query repeated", "cap raised",
        "data set in two populations", "head not co-signed",
    }  # fmt: skip
    said_in_chinese((each.message for each in found), chinese)
    assert not [each for each in found if "add/remove" in chinese(each.message)]


def test_what_fits_no_form_and_english_stay_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    for words in ("because I say so", "a, b; or c", "多"):
        assert in_language(words, "zh") == words
    message = "The plan's delta is 1e-05; at most 1e-06"
    assert in_language(message, "en") == message
    monkeypatch.setattr("dashboard.told.language", lambda: "zh")
    assert told_refusal(f"delta: {message}") == f"delta: {chinese(message)}" != f"delta: {message}"


def _alerts() -> list[Alert]:
    book = Book()
    for name in "12":
        book.plan(name, 3, model="m", query="q")
        book.release(name, 2, noise=1.0)
    book.add("budget", 1, population="people", epsilon=9.0, delta=1e-5, public=False)
    book.add("budget", 1, population="others", epsilon=9.0, delta=1e-5, public=False)
    for population in ("people", "others"):
        summary = {"author": population, "model": population, "dataset": "orders"}
        book.add("submission", 1, plan=population[0] * 64, population=population, scientist="x",
                 events=[], summary=summary)  # fmt: skip
    return book.found()


def _unsigned() -> list[Alert]:
    book = Book()
    summary = {"author": "ada", "roster": ["north", "south"]}
    book.add("submission", 3, plan="1" * 64, population="people", scientist="x", events=[],
             summary=summary)  # fmt: skip
    book.release("1", 2)
    book.add("release", 2, plan="1" * 64, step="count", release=0, attempt=0)
    return unsigned_heads(book.lines, "north", {})
