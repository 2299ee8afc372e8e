"""What domains show each other of the last total that they opened, and what is checked of it.

A domain says which masked inputs it helps to open, and signs an entry about them. Its peers don't
see that entry when the total is opened, only in the round that follows: it must name the inputs
that they opened themselves.
"""

import hashlib
import json
from collections.abc import Collection
from typing import Any

from sqlalchemy import Connection, Select, bindparam, select

from policies.ledger.chain import Entry, entry_hash
from policies.ledger.errors import HeadRefused
from policies.ledger.shown import LeafEntry, Opened, Shown
from policies.ledger.statements import Statement
from policies.ledger.tables import ATTEMPTS, ENTRIES, MENTIONS, Row, row_of
from policies.merkle import verify_inclusion


def newest(kind: str) -> Select[Any]:
    """The last entry of a kind about one plan."""
    return (
        select(ENTRIES)
        .join(MENTIONS, MENTIONS.c.index == ENTRIES.c.index)
        .where(MENTIONS.c.about == bindparam("plan_hash"), MENTIONS.c.kind == kind)
        .order_by(MENTIONS.c.index.desc())
        .limit(1)
    )


_NEWEST, _ATTEMPT = Statement(newest("release")), Statement(row_of(ATTEMPTS))


def newest_opened(connection: Connection, plan_hash: str) -> Entry | None:
    """The entry about the last total of a plan that this domain helped to open."""
    found = _NEWEST.first(connection, {"plan_hash": plan_hash})
    return None if found is None else Entry(*found)


def check_opened(connection: Connection, shown: Shown, me: str, plan_hash: str) -> None:
    """Nothing, if what a peer opened last in this plan is what was opened here.

    Raises:
        HeadRefused: it isn't, or the peer doesn't show what it confirmed.
    """
    said, name = shown.note.opened, shown.domain
    if said is None:
        _require_none(shown.expected, name)
        return
    if not _is_under(said, shown):
        raise HeadRefused(name, "what it opened last isn't in the ledger that it shows")
    opened = Opened.read(_parsed(said.body), name)
    where = opened.plan, opened.step, opened.release, opened.attempt
    if opened.plan != plan_hash:
        raise HeadRefused(name, "what it opened last is of another plan than this one")
    keys = ("plan_hash", "step", "release", "attempt")
    row = _ATTEMPT.first(connection, dict(zip(keys, where, strict=True)))
    if not _agrees(opened, row, me):
        raise HeadRefused(
            name,
            f"its ledger says that attempt {opened.attempt} of {opened.step}/{opened.release}"
            f" opened other inputs than {me}'s does. One of the two was rewritten or rolled back,"
            " or lies: no round goes on; compare `coterie ledger heads` of all partners",
        )
    if row is not None and row.inputs and where not in shown.expected:
        _require_none(shown.expected, name)


def _require_none(expected: Collection[tuple[str, str, int, int]], name: str) -> None:
    if expected:
        _, step, release, attempt = next(iter(expected))
        raise HeadRefused(
            name,
            f"its ledger doesn't show that it opened attempt {attempt} of {step}/{release},"
            " which its node confirmed: no round goes on with it",
        )


def _parsed(body: str) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def _is_under(said: LeafEntry, shown: Shown) -> bool:
    digest, head = entry_hash(said.index, said.previous, said.kind, said.body), shown.note.head
    path = [bytes.fromhex(each) for each in said.path]
    return said.kind == "release" and verify_inclusion(
        bytes.fromhex(digest), said.index - 1, head.size, path, bytes.fromhex(head.root)
    )


def _agrees(opened: Opened, row: Row | None, me: str) -> bool:
    """Whether a peer's release entry is about what this domain charged and opened, if it did."""
    mine = opened.opened.get(me)
    if mine is not None:
        share = hashlib.sha256(bytes.fromhex(mine)).hexdigest()
        if row is None or row.state != "charged" or row.share != share:
            return False
    return row is None or row.inputs in ("", opened.inputs)
