"""What each kind of entry says: the fields it must and may have, and of which type."""

from collections.abc import Callable
from typing import Any

_TRY = {"plan", "step", "release", "attempt"}
FIELDS: dict[str, tuple[set[str], set[str]]] = {
    "ledger": ({"domain", "node_key"}, set()),
    "budget": ({"population", "epsilon", "delta", "public"}, {"orders", "shares"}),
    "submission": (
        {"plan", "name", "scientist", "population", "events", "spare_attempts", "summary"},
        set(),
    ),
    "refusal": ({"plan", "rule", "reason"}, set()),
    "consent": ({"plan", "by"}, {"reason", "explanation"}),
    "approval": (
        {"plan", "by", "owner_key", "signature", "explanation", "reason"},
        {"second_key", "second"},
    ),
    "denial": ({"plan", "by", "reason"}, {"explanation"}),
    "reservation": ({*_TRY, "event"}, set()),
    "charge": ({*_TRY, "share"}, set()),
    "release": ({*_TRY, "inputs"}, {"opened"}),
    "void": ({*_TRY, "reason"}, set()),
    "closure": ({"plan", "reason"}, {"by", "explanation"}),
    "objection": ({"plan", "reason"}, set()),
    "owner": ({"replaces", "owner_key", "signature", "consent"}, set()),
    "rules": (
        {"population", "data_set", "replaces", "rules", "changes", "by", "reason"}
        | {"owner_key", "signature"},
        set(),
    ),
}
"""What each kind of entry says: fields it must have, and may have beside them."""

TYPES: dict[str, tuple[type, ...]] = {
    "epsilon": (int, float), "delta": (float,), "public": (bool,), "events": (list,),
    "spare_attempts": (int,), "summary": (dict,), "release": (int,), "attempt": (int,),
    "event": (dict,), "opened": (dict,), "orders": (list,), "shares": (list,), "changes": (list,),
}  # fmt: skip


def check_fields(kind: str, body: dict[str, Any], expect: Callable[[bool, str], None]) -> None:
    """Let `expect` hear of every field that is missing, too many or of another type."""
    expect(kind in FIELDS, f"unknown kind of entry {kind!r}")
    needed, more = FIELDS[kind]
    names = set(body) - {"time"}
    expect(needed <= names, f"it lacks {sorted(needed - names)}")
    odd = sorted(names - needed - more)
    expect(not odd, f"it says more than its kind may: {odd}")
    for name in names:
        expect(
            type(body[name]) in TYPES.get(name, (str,)),
            f"its {name!r} is {type(body[name]).__name__}, which it can't be",
        )


def check_changes(changes: list[Any]) -> bool:
    """Whether these are settings of a policy, each with what it was and is, as text."""
    return all(
        type(change) is list and len(change) == 3 and all(type(each) is str for each in change)
        for change in changes
    )
