"""The next attempt begins with the calls of the one before, and never at its expense."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from network.attempts import Attempt, Beside
from network.lines import Lines
from network.rounds import RoundAborted, attempt_of, carried_through, verify_rounds
from tests.domains.nodes_at_hand import NodeAtHand
from tests.domains.participating_domains import NAMES, STATE, Domains, domains_in


@pytest.fixture
def domains(tmp_path: Path) -> Domains:
    return domains_in(tmp_path)


class Recorded(NodeAtHand):
    """A node whose calls are counted; `named`, if given, is what each names as following."""

    def __init__(self, name: str, domains: Domains, named: str | None = None) -> None:
        super().__init__(name, domains)
        self.asked: list[str] = []
        self._named = named

    def stream(self, method: str, *rest: Any, **arguments: Any) -> Any:
        self.asked.append(method)
        if "following" in arguments and self._named is not None:
            arguments["following"] = self._named
        return super().stream(method, *rest, **arguments)


def attempts(
    domains: Domains, nodes: dict[str, Any], lines: Lines, *releases: int
) -> list[Attempt]:
    where = domains.folder / "run", lines
    return [attempt_of(nodes, domains.plan, "s", release, 0, *where) for release in releases]


def test_a_run_asks_no_domain_to_begin_but_the_first_time(domains: Domains) -> None:
    nodes: dict[str, Any] = {name: Recorded(name, domains) for name in NAMES}
    with Lines() as lines:
        first, second, third = attempts(domains, nodes, lines, 0, 1, 2)
        totals = [
            carried_through(first, STATE, Beside(following=lambda: second)).total,
            carried_through(second, STATE, Beside(following=lambda: third)).total,
            carried_through(third, STATE).total,
        ]
    for node in nodes.values():
        assert node.asked == ["advertise", *["share", "reveal", "confirm", "unmask"] * 3]
    # Two sums of the same users are alike only if their noise is: with probability below 2^-100.
    assert not any(np.array_equal(totals[0], total) for total in totals[1:])
    assert verify_rounds(domains.plan, domains.folder / "run") == [("s", n, 0) for n in range(3)]


@pytest.mark.parametrize(
    "where",
    [
        {"step": "s", "release": 99, "attempt": 0, "tensor": ""},
        {"step": "s", "release": 0, "attempt": 0, "tensor": ""},
        {"step": "no such", "release": 1, "attempt": 0, "tensor": ""},
        {"step": "s", "release": 1, "attempt": 2**40, "tensor": ""},
        {"step": "s", "release": 1, "attempt": -1, "tensor": ""},
        {"step": "s", "release": 1, "attempt": 0, "tensor": "none/8"},
    ],
)
def test_what_can_t_be_begun_spoils_nothing(domains: Domains, where: dict[str, Any]) -> None:
    nodes: dict[str, Any] = {name: Recorded(name, domains, json.dumps(where)) for name in NAMES}
    with Lines() as lines:
        first, second = attempts(domains, nodes, lines, 0, 1)
        assert carried_through(first, STATE, Beside(following=lambda: second)).survivors == NAMES
        assert carried_through(second, STATE).survivors == NAMES
    for node in nodes.values():
        assert node.asked.count("advertise") == 2, "it is asked for again"


@pytest.mark.parametrize(
    "named",
    ["{", "[]", "{}", '{"step": "s", "release": "1", "attempt": 0, "tensor": ""}',
     '{"step": "s", "release": true, "attempt": 0, "tensor": ""}',
     '{"step": "s", "release": 1, "attempt": 0, "tensor": "", "more": 1}'],
)  # fmt: skip
def test_what_names_no_attempt_is_refused_before_anything_is_charged(
    domains: Domains, named: str
) -> None:
    nodes: dict[str, Any] = {name: Recorded(name, domains, named) for name in NAMES}
    with Lines() as lines:
        (first,) = attempts(domains, nodes, lines, 0)
        with pytest.raises(RoundAborted, match=r"An attempt is named|Expected a JSON"):
            carried_through(first, STATE)
    for name in NAMES:
        assert [s for *_, s in domains.ledgers[name].attempts(domains.plan.hash)] == ["reserved"]


def test_an_attempt_that_a_late_confirm_names_isn_t_begun_again(domains: Domains) -> None:
    """A confirm that comes once more, after the attempt it names was shared, ends nothing."""
    nodes: dict[str, Any] = {name: Recorded(name, domains) for name in NAMES}
    again: list[Any] = []

    class Late(Recorded):
        kept: dict[str, Any]

        def stream(self, method: str, *rest: Any, **arguments: Any) -> Any:
            answer = super().stream(method, *rest, **arguments)
            if method == "confirm" and arguments["release"] == 0:
                self.kept = arguments
            if method == "share" and arguments["release"] == 1:
                again.append(json.loads(super().stream("confirm", **self.kept))["begun"])
            return answer

    nodes["south"] = Late("south", domains)
    with Lines() as lines:
        first, second = attempts(domains, nodes, lines, 0, 1)
        carried_through(first, STATE, Beside(following=lambda: second))
        assert carried_through(second, STATE).survivors == NAMES
    assert again == [None]
