"""Arguments that a method doesn't take: of another kind, beyond a database, halves of characters.

They are refused before any method sees them, and never fail on the node.
"""

import json
from collections.abc import Callable
from itertools import cycle
from typing import Any

import numpy as np
import pytest
import requests
from syft.service.user.user_roles import ServiceRole

from domains.paths import paths_of
from network.streams import STREAMS, write_call
from tests.hostile.attacks import Attack, Target, call
from tests.hostile.test_streams import verdict

pytestmark = pytest.mark.nodes

HALF = "\ud800"
ODD: dict[str, Any] = {
    "a truth": True,
    "a fraction": 1.5,
    "nothing": None,
    "bytes": b"x",
    "a list": [1],
    "a mapping": {"a": [{}]},
    "an array of no dimension": np.array(3, np.uint8),
}


def as_auditor(path: str, **arguments: Any) -> Callable[[Target], str]:
    return lambda target: call(target.auditor, path, **arguments)


def streamed(method: str, **arguments: Any) -> Callable[[Target], str]:
    """Streams carry JSON, which can spell what Syft's own text can't."""

    def run(target: Target) -> str:
        node = target.rival
        key, server = node._key.signing_key, str(node.server_uid)
        message = write_call(key, server, f"coterie.{method}", arguments)
        answer = requests.post(f"{node.url}{STREAMS}/{method}", data=message, timeout=120)
        return verdict(answer.status_code, answer.content)

    return run


def wanted(**said: Any) -> Callable[[Target], str]:
    return as_auditor("coterie.ledger_page", before=9, limit=9, wanted=json.dumps(said))


ATTACKS = [
    Attack("half hash", "half a character in a plan's hash", streamed("plan", plan_hash=HALF * 64)),
    Attack("half word", "half a character for a word", streamed("ledger_spends", by=HALF)),
    Attack("half name", "half a character in an argument's name", streamed("plan", **{HALF: 5})),
    Attack("half plan", "half a character as a plan", streamed("quote", plan=HALF)),
    Attack("far entry", "entry 2**70", as_auditor("coterie.ledger_entry", index=2**70)),
    Attack("SQL entry", "SQL as an entry", as_auditor("coterie.ledger_entry", index="1 OR 1=1")),
    Attack("far page", "entries after 10**30", as_auditor("coterie.ledger", after=10**30, limit=1)),
    Attack("deep filter", "5,000 brackets as a filter", as_auditor(
        "coterie.ledger_page", before=9, limit=9, wanted='{"kinds": ' + "[" * 5000)),
    Attack("filter's field", "a field that filters lack", wanted(__init__="x")),
    Attack("filter's plan", "SQL as a filter's plan", wanted(plan="' OR 1=1 --")),
    Attack("filter's half", "half a character as a filter's plan", wanted(plan=HALF * 6)),
    Attack("filter's kinds", "a number as a filter's kinds", wanted(kinds=5)),
]  # fmt: skip


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_what_no_method_takes_is_refused(
    attack: Attack, target: Target, record_property: Callable[[str, str], None]
) -> None:
    got = attack.run(target)
    record_property("tried", attack.tried)
    record_property("got", got)
    print(f"odd | {attack.tried} | {got}")
    assert got.startswith("refused"), got
    assert "failed on the node" not in got


def test_no_method_is_reached_by_an_argument_of_another_kind(target: Target) -> None:
    ours = sorted(p for p in paths_of(ServiceRole.DATA_SCIENTIST) if p.startswith("coterie."))
    assert len(ours) > 20
    for path, (what, odd) in zip(ours, cycle(ODD.items()), strict=False):
        got = call(target.rival, path, plan_hash=odd)
        assert got.startswith("refused: "), (path, what, got)
        assert " takes " in got, (path, what, got)


def test_a_filter_of_200_000_kinds_finds_what_64_do(target: Target) -> None:
    many = ["ledger"] + ["x"] * 200_000
    said = json.dumps({"kinds": many})
    got = call(target.auditor, "coterie.ledger_page", before=0, limit=1, wanted=said)
    assert got.startswith('answered: {"entries": [{"index": 1')
