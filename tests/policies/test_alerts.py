"""Patterns that no single entry shows."""

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from policies.alerts import Alert, alerts, partners, unsigned_heads

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
EVENT = {"noise_multiplier": 10.0, "sampling_rate": 1.0, "count": 1}


@dataclass(frozen=True)
class Line:
    index: int
    kind: str
    body: str


class Book:
    def __init__(self) -> None:
        self.lines: list[Line] = []
        self.add("budget", 100, population="people", epsilon=8.0, delta=1e-5, public=False)

    def add(self, kind: str, days_ago: float, **body: Any) -> None:
        time = (NOW - timedelta(days=days_ago)).isoformat(timespec="seconds")
        self.lines.append(Line(len(self.lines) + 1, kind, json.dumps({"time": time, **body})))

    def plan(self, name: str, days_ago: float, model: str, query: str, author: str = "ada") -> None:
        summary = {"author": author, "model": model, "queries": {"count": query}}
        self.add("submission", days_ago, plan=name * 64, population="people", scientist="x",
                 events=[EVENT], summary=summary)  # fmt: skip

    def release(self, name: str, days_ago: float, noise: float = 10.0) -> None:
        where = {"plan": name * 64, "step": "count", "release": 0, "attempt": 0}
        self.add("reservation", days_ago, event={**EVENT, "noise_multiplier": noise}, **where)
        self.add("charge", days_ago, share="0" * 64, **where)

    def found(self) -> list[Alert]:
        return alerts(self.lines, NOW)


def test_two_different_plans_that_spend_little_raise_nothing() -> None:
    book = Book()
    for name in "12":
        book.plan(name, 3, model=name, query=name)
        book.release(name, 2, noise=100.0)
    assert book.found() == []


def test_plans_of_one_computation_in_a_short_time_are_told() -> None:
    book = Book()
    for name, days in (("1", 9), ("2", 5), ("3", 1)):
        book.plan(name, days, model="m", query=name)
    [alert] = book.found()
    assert (alert.kind, alert.entries) == ("near-duplicate plans", (2, 3, 4))


@pytest.mark.parametrize("change", ["another author", "months between"])
def test_what_is_not_one_intention_is_not_told(change: str) -> None:
    book = Book()
    book.plan("1", 99 if change == "months between" else 5, model="m", query="1")
    book.plan("2", 1, model="m", query="2", author="bob" if change == "another author" else "ada")
    assert book.found() == []


def test_the_same_query_from_several_plans_is_told_with_what_averaging_leaves() -> None:
    book = Book()
    for name in "1234":
        book.plan(name, 3, model=name, query="q", author=name)
        book.release(name, 2, noise=100.0)
    [alert] = book.found()
    assert alert.kind == "same query repeated"
    assert "4 times by 4 plans" in alert.message
    assert "noise multiplier 50.000 instead of 100.000" in alert.message


def test_a_budget_that_will_not_last_is_told() -> None:
    book = Book()
    book.plan("1", 3, model="m", query="q")
    book.release("1", 2, noise=1.0)
    [alert] = book.found()
    assert alert.kind == "spend rate"
    assert "at this rate it lasts" in alert.message
    assert "per domain" in alert.message


def test_a_cap_that_rose_is_told() -> None:
    book = Book()
    book.add("budget", 50, population="people", epsilon=8.0, delta=1e-5, public=False)
    assert book.found() == []
    book.add("budget", 40, population="people", epsilon=9.0, delta=1e-5, public=False)
    [alert] = book.found()
    assert (alert.kind, alert.entries) == ("cap raised", (3,))
    assert "from epsilon 8.000 to 9.000 at delta 1e-05" in alert.message


def test_a_data_set_that_is_charged_to_two_budgets_is_told() -> None:
    book = Book()
    for name, population in (("1", "people"), ("2", "others"), ("3", "people")):
        book.add("submission", 3, plan=name * 64, population=population, scientist="x",
                 events=[EVENT], summary={"dataset": "clicks"})  # fmt: skip
    [alert] = book.found()
    assert (alert.kind, alert.population) == ("data set in two populations", "others")
    assert alert.entries == (2, 3)


def test_a_peer_that_was_not_asked_for_its_heads_is_not_said_to_hold_none() -> None:
    book = Book()
    book.plan("a", 2, "m1", "q1")
    body = json.loads(book.lines[-1].body)
    body["summary"]["roster"] = ["north", "south"]
    book.lines[-1] = Line(2, "submission", json.dumps(body))
    assert partners(book.lines) == set(), "whoever submits may name any"
    book.release("a", 1)
    where = {"plan": "a" * 64, "step": "count", "release": 0, "attempt": 0}
    book.add("release", 1, inputs="0" * 64, **where)
    assert partners(book.lines) == {"north", "south"}
    (told,) = unsigned_heads(book.lines, "north", {})
    assert (told.kind, "south" in told.message) == ("head not co-signed", True)
    assert unsigned_heads(book.lines, "north", {}, asked=["west"]) == []
    assert unsigned_heads(book.lines, "north", {"south": 3}) == []
