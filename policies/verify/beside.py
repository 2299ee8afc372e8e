"""What stands beside the entries and must follow from them: tables, a bundle, co-signed heads."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import rfc8785

from policies.verify.evidence import (
    CLOCK_SKEW,
    UNREADABLE,
    Bad,
    Cosigned,
    bundle_words,
    cosignature_words,
    head_words,
    is_signed,
    no_constant,
    unique_keys,
    utc,
    whole,
)
from policies.verify.reading import Found
from policies.verify.replay import Attempt, Attempted, PlanState, Replay, Row
from policies.verify.witnesses import Opened, Witnessed

SCHEMA = "0003"
"""The version of the tables that this verifier knows."""


def watch(state: Replay, found: Found, witnessed: Witnessed) -> None:
    """Note at which sizes the root will be needed."""
    state.sizes = {each.size for each in (*found.cosigned, *witnessed.heads)}
    if found.bundle is not None:
        state.sizes.add(whole(found.bundle["size"]))


def finish(state: Replay, found: Found, witnessed: Witnessed) -> None:
    state.expect(state.index > 0, "the ledger is empty", at=None)
    state.expect(
        state.last_owner in (None, state.owner_key),
        f"its owner's key is {state.owner_key}, expected {state.last_owner}",
        at=None,
    )
    heads = [each for each in witnessed.heads if each.node_key == state.key]
    own = [replace(each, node_key=state.key or "") for each in found.cosigned]
    try:
        if found.bundle is not None:
            _check_bundle(state, found.bundle)
        for table, rows in found.tables.items():
            _check_table(state, table, rows)
        _check_names(state, [*own, *witnessed.heads], found.tables.get("ledgerpeerhead", ()))
        _check_cosigned(state, own)
        _check_cosigned(state, heads)
        _check_opened(state, witnessed.opened)
    except UNREADABLE as error:
        raise Bad(f"it can't be read ({type(error).__name__}: {error})", None) from None
    for each in heads:
        state.witnesses.add(each.witness_key)
        name = f"{each.witness} ({each.witness_key[:16]})"
        state.covered[name] = max(each.size, state.covered.get(name, 0))


def _check_table(state: Replay, table: str, rows: Iterable[Row]) -> None:
    if table == "ledgerpeerhead":
        _check_peer_heads(state, rows)
        return
    if table == "ledgerplan":
        try:
            rows = [(*r[:5], plain(_once(r[5])), r[6], plain(_once(r[7])), *r[8:]) for r in rows]
        except ValueError as error:
            raise Bad(f"table {table} has a row that no node wrote: {error}", None) from None
    if table == "ledgeruse":
        rows = [row for row in rows if row[-1] or row[:-1] not in _uses(state, void=True)]
    found, expected = Counter(rows), Counter(_index_rows(state, table))
    odd = [*(found - expected), *(expected - found)]
    state.expect(not odd, f"table {table} doesn't follow from the entries, at {odd[:1]}", at=None)


def _index_rows(state: Replay, table: str) -> Iterable[Row]:
    if table == "ledgerhead":
        return [(1, state.index, state.head)]
    if table == "ledgermention":
        return state.mentions
    if table == "ledgerbudget":
        return [(name, b.epsilon, b.delta, int(b.public)) for name, b in state.budgets.items()]
    if table == "ledgerplan":
        return [_plan_tuple(name, plan) for name, plan in state.plans.items()]
    if table == "ledgeruse":
        return [(*key, count) for key, count in _uses(state).items()]
    if table == "ledgerversion":
        return [(SCHEMA,)]
    return [_try_tuple(key, one) for key, one in state.tries.items()]


def _uses(state: Replay, void: bool = False) -> Counter[Row]:
    return Counter(
        (one.population, key[0], *one.mechanism, int(one.repeat))
        for key, one in state.tries.items()
        if void or one.state != "void"
    )


def _check_peer_heads(state: Replay, rows: Iterable[Row]) -> None:
    newest = {row[0]: row[1] for row in sorted(rows, key=lambda row: row[1])}
    for node_key, size, domain, root, signature, time, cosignature, covered in rows:
        head, said = head_words(domain, size, root), cosignature_words(node_key, size, root, time)
        good = is_signed(node_key, signature, head) and is_signed(
            state.key or "", cosignature, said
        )
        state.expect(
            good, f"the head of {domain} at {size} entries that it keeps was changed", at=None
        )
        state.expect(
            not (covered and size == newest[node_key]),
            f"the head of {domain} at {size} entries is the newest, and marked as if a later one"
            " covered it: the node would let that peer roll back",
            at=None,
        )


def _check_bundle(state: Replay, bundle: dict[str, Any]) -> None:
    size = whole(bundle["size"])
    order = [(each["size"], each["node_key"]) for each in bundle["cosignatures"]]
    sizes = [size for size, _ in order]
    state.expect(
        sizes == sorted(sizes) and len(set(order)) == len(order),
        "the bundle's co-signatures aren't in order, or one stands twice",
        at=None,
    )
    state.expect(
        size == state.index,
        f"the bundle says it has {size} entries, it has {state.index}",
        at=min(state.index, size) + 1,
    )
    told = bundle["root"], bundle["domain"], bundle["node_key"]
    state.expect(
        told == (state.watched[size][0], state.domain, state.key),
        "the bundle's head isn't that of its entries",
        at=None,
    )
    state.expect(
        is_signed(state.key or "", bundle["signature"], bundle_words(bundle)),
        "the bundle isn't signed by the node: its date or co-signatures were changed",
        at=None,
    )
    exported = utc(bundle["exported"])
    state.expect(
        state.time <= exported + CLOCK_SKEW and exported <= datetime.now(UTC) + CLOCK_SKEW,
        f"the bundle is dated {exported}, which its entries or the clock contradict",
        at=None,
    )


def _check_names(state: Replay, heads: Iterable[Cosigned], kept: Iterable[Row]) -> None:
    """Nobody's key goes under two names; a peer's own signature is under its name in `kept`."""
    names = {node_key: domain for node_key, _, domain, *_ in kept}
    for each in heads:
        name = names.setdefault(each.witness_key, each.witness)
        state.expect(
            name == each.witness,
            f"{each.where}: {each.witness_key} is said to be {each.witness}'s key, it is {name}'s",
            at=None,
        )


def _check_opened(state: Replay, opened: Iterable[Opened]) -> None:
    """What a peer helped to open with a share of this domain's is charged here."""
    for each in opened:
        digest = each.masked.get(state.domain)
        if digest is None or (state.peers is not None and each.witness_key not in state.peers):
            continue
        one = state.tries.get(each.attempt)
        share = hashlib.sha256(bytes.fromhex(digest)).hexdigest()
        _, step, release, attempt = each.attempt
        state.expect(
            one is not None and one.state == "charged" and one.share == share,
            f"{each.witness}'s ledger says that it opened this domain's share of attempt {attempt}"
            f" of {step}/{release}, which isn't charged here: the end was cut off or rewritten",
            at=one.index if one is not None and one.state != "reserved" else state.index + 1,
        )


def _check_cosigned(state: Replay, heads: Iterable[Cosigned]) -> None:
    """Every co-signed head is one of this chain's, and its time fits the entries' times."""
    good = 0
    for each in sorted(heads, key=lambda each: each.size):
        said = cosignature_words(each.node_key, each.size, each.root, each.time)
        state.expect(
            each.witness_key != state.key,
            f"{each.where}: {each.witness}'s head is signed by the ledger's own key, not by a peer",
            at=None,
        )
        state.expect(
            state.peers is None or each.witness_key in state.peers,
            f"{each.where}: {each.witness} signs with {each.witness_key}, no key of the roster",
            at=None,
        )
        state.expect(
            each.node_key == state.key and is_signed(each.witness_key, each.cosignature, said),
            f"{each.where}: the co-signature at {each.size} entries isn't {each.witness}'s",
            at=None,
        )
        state.expect(
            each.size <= state.index,
            f"{each.witness} co-signed {each.size} entries, here are {state.index}: the ledger"
            " was cut off or rolled back to an older copy",
            at=state.index + 1,
        )
        root, last = state.watched[each.size]
        state.expect(
            root == each.root,
            f"{each.witness} co-signed other entries up to {each.size}: one from {good + 1} on"
            " was rewritten, or this is a fork",
            at=good + 1,
        )
        state.expect(
            last <= utc(each.time) + CLOCK_SKEW,
            f"it is dated after {each.witness} had co-signed it ({each.time})",
            at=each.size,
        )
        good = each.size


def _plan_tuple(name: str, plan: PlanState) -> Row:
    row = plan.row
    events = [
        {"noise_multiplier": noise, "sampling_rate": rate, "count": count}
        for (noise, rate), count in sorted(plan.allowed.items())
    ]
    return (
        name, row["name"], row["scientist"], plan.population, plan.status, plain(events),
        plan.spare, plain(row["summary"]), row["submitted"], row["decided"], row["decided_by"],
        row["reason"],
    )  # fmt: skip


def _try_tuple(key: Attempt, one: Attempted) -> Row:
    paid = (one.population, one.state, *one.mechanism, int(one.repeat))
    return (*key, *paid, one.share, one.inputs, one.reserved)


def _once(text: str) -> Any:
    """JSON as a row keeps it: no key twice, of which readers might take either, and no room for
    more than it says. Raises ValueError."""
    value = json.loads(text, object_pairs_hook=unique_keys, parse_constant=no_constant)
    if text not in (json.dumps(value), rfc8785.dumps(value).decode()):
        raise ValueError("spaces or numbers are written in another way")
    return value


def plain(value: Any) -> str:
    """JSON with every number as a float, so that 4 and 4.0 are the same."""
    return json.dumps(json.loads(json.dumps(value), parse_int=float), sort_keys=True)
