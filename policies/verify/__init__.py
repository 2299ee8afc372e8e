"""The auditor's reading of a ledger, offline: `python -m policies.verify LEDGER [--heads PATH]`.

It shares no code with what writes ledgers: only json, RFC 8785, hashlib, SQL, the signatures of
`cryptography`, and dp-accounting called directly. `replay` has the rules, entry by entry; `beside`
what must follow from the entries; `spending` recomputes epsilon; `reading` and `evidence` read
files and check signatures. The first bad entry is named, and what is wrong with it.

A ledger rolled back to an older copy, or rewritten whole under the node's own key, contradicts
nothing inside itself: without its peers' heads the best verdict there is, is 'consistent, not
proven complete'. With them (`coterie ledger heads` at each peer) it is 'complete', or it is bad.
"""

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from policies.verify.beside import finish, watch
from policies.verify.evidence import (
    UNREADABLE,
    Bad,
    Cosigned,
    EntryLike,
    Link,
    cosignature_words,
    entry_text,
    head_words,
    is_cosigned,
    is_signed,
    root_of_path,
    whole,
)
from policies.verify.reading import json_file, only, read_ledger
from policies.verify.replay import Replay
from policies.verify.spending import UNIT
from policies.verify.witnesses import Witnessed, read_witnessed

__all__ = ["UNIT", "Verdict", "heads_problem", "verify", "verify_proof"]


@dataclass(frozen=True)
class Verdict:
    """What a replay found.

    Attributes:
        ok: nothing contradicts anything else.
        entries: how many entries were read without fault.
        first_bad: index of the first bad entry; None if ok, or if no single entry is to blame.
        problem: what is wrong; empty if ok.
        epsilon: by population, of everything charged or reserved up to there: the Renyi filter's
            figure at the budget's delta, for `UNIT`.
        text: the whole verdict in words.
        complete: the peers' heads were given and are all in this ledger.
        everywhere: as `epsilon`, for a person who is a user at every partner of each plan.
    """

    ok: bool
    entries: int
    first_bad: int | None
    problem: str
    epsilon: dict[str, float]
    text: str
    complete: bool = False
    everywhere: Mapping[str, float] = field(default_factory=dict)


def verify(
    ledger: str | Path | Sequence[EntryLike],
    domain_key: str | None = None,
    owner_key: str | None = None,
    heads: str | Path | Sequence[Mapping[str, Any]] | None = None,
    peers: Collection[str] | None = None,
) -> Verdict:
    """Replay a ledger: an SQLite file, an exported bundle, a database URL, or entries.

    `domain_key` is the node's public key in hex, from the roster; without it the key that the
    ledger itself names is used, and the verdict says so. With `owner_key`, approvals must be
    signed by it, or by the keys whose place it took. `heads` is a file that a peer exported, a
    folder of such files, or their JSON. `peers` are the other domains' node keys from the roster:
    nobody else's heads count then.

    Raises:
        FileNotFoundError: there is no such file, or no heads in the folder.
    """
    state = Replay(domain_key, owner_key)
    count = 0
    try:
        witnessed = read_witnessed(heads)
        state.peers = peers
        found = read_ledger(ledger)
        found.entries = list(found.entries)
        watch(state, found, witnessed)
        state.foresee(found.entries)
        for entry in found.entries:
            state.replay(entry)
            count += 1
        finish(state, found, witnessed)
    except Bad as bad:
        return _verdict(state, count, str(bad), bad.index)
    return _verdict(state, count, "", None)


def heads_problem(said: Mapping[str, Any], witness_key: str) -> str:
    """What is wrong with the heads that a peer gave as its own; empty if nothing is."""
    try:
        heads = Witnessed.of([("its heads", said)]).heads
        if said["witness_key"] != witness_key:
            return f"its heads are signed by {said['witness_key']}, expected {witness_key}"
    except (Bad, *UNREADABLE) as error:
        return str(error)
    for each in heads:
        if not is_cosigned(each):
            return f"its co-signature at {each.size} entries isn't its own"
    return ""


def verify_proof(
    proof: str | Path, domain_key: str | None = None, heads: str | Path | None = None
) -> Verdict:
    """Check that one entry is in a ledger, from what `coterie ledger prove` wrote."""
    state = Replay(domain_key, None)
    try:
        said = json_file(Path(proof), "coterie-proof-v1")
        witnessed = read_witnessed(heads).heads
        text, signed = _check_proof(state, said, witnessed)
    except Bad as bad:
        return Verdict(False, 0, bad.index, str(bad), {}, f"BAD: {bad}")
    return Verdict(True, 1, None, "", {}, text, signed)


def proves(proof: Mapping[str, Any], domain_key: str) -> bool:
    """Whether this is the proof (`coterie ledger prove`) of an entry that `domain_key` signed."""
    try:
        _check_proof(Replay(domain_key, None), dict(proof), [])
    except Bad:
        return False
    return proof.get("format") == "coterie-proof-v1"


def _check_proof(
    state: Replay, said: dict[str, Any], witnessed: Sequence[Cosigned]
) -> tuple[str, bool]:
    try:
        head, entry = said["head"], said["entry"]
        index, size, root = whole(entry["index"]), whole(head["size"]), str(head["root"])
        key = state.key or str(said["node_key"])
        only(said, {"format", "node_key", "head", "entry"})
        only(head, {"domain", "size", "root", "signature"})
        only(entry, {"index", "previous", "kind", "body", "path"})
        link = Link(index, entry["previous"], entry["kind"], entry["body"], "", "")
        leaf = hashlib.sha256(entry_text(link).encode()).digest()
        path = [bytes.fromhex(each) for each in entry["path"]]
        in_range = 1 <= index <= size
        found = root_of_path(leaf, index - 1, size, path) if in_range else ""
        signed = is_signed(key, head["signature"], head_words(head["domain"], size, root))
    except UNREADABLE as error:
        raise Bad(f"the proof can't be read ({type(error).__name__}: {error})", None) from None
    if not signed:
        raise Bad("the proof's head isn't signed by the node", None)
    if found != root:
        raise Bad("the entry isn't under the proof's head: it was changed or never there", index)
    names = []
    for each in witnessed:
        if each.node_key != key or each.size != size:
            continue
        message = cosignature_words(each.node_key, each.size, each.root, each.time)
        if not is_signed(each.witness_key, each.cosignature, message):
            raise Bad(f"{each.where}: the co-signature isn't {each.witness}'s", None)
        if each.root != root:
            raise Bad(f"{each.witness} co-signed another ledger of {size} entries: a fork", None)
        if each.witness_key == key:
            raise Bad(f"{each.where}: signed by the ledger's own key, not by a peer", None)
        names.append(f"{each.witness} ({each.witness_key[:16]})")
    by = f"co-signed by {', '.join(names)}" if names else "not co-signed by a given peer"
    lines = [f"Entry {index} is in the ledger of {head['domain']!r} at {size} entries; {by}."]
    lines.append(f"{entry['kind']}: {entry['body']}")
    if not state.pinned:
        lines.append(
            f"The node's key was taken from the proof ({key}): compare it with the roster."
        )
    return "\n".join(lines), bool(names)


def _verdict(state: Replay, count: int, problem: str, first_bad: int | None) -> Verdict:
    budgets = {name: budget for name, budget in state.budgets.items() if budget.delta}
    epsilon = {name: budget.figure() for name, budget in budgets.items()}
    everywhere = {name: budget.figure(everywhere=True) for name, budget in budgets.items()}
    lines = _headlines(state, count, problem, first_bad)
    for name, budget in budgets.items():
        cap = "declared public, no limit" if budget.public else f"of {budget.epsilon:.3f}"
        lines += [
            f"Population {name!r}: epsilon {epsilon[name]:.3f} ({cap}) at delta {budget.delta:g};"
            f" for a person who is a user at every partner {everywhere[name]:.3f}"
        ]
    lines.append(f"Epsilon holds for plans chosen adaptively; unit: {UNIT}.")
    if not state.pinned:
        lines.append("The node's key was taken from the ledger itself: compare it with the roster.")
    if state.last_owner is None and state.owners:
        signed = ", ".join(sorted(state.owners)[:3])
        more = f" and {len(state.owners) - 3} more" if len(state.owners) > 3 else ""
        lines.append(
            f"No owner's key was given: what is signed as the owner's is by {signed}{more}. Compare"
            " with the roster."
        )
    if state.covered and state.peers is None:
        lines.append("The peers' keys were taken from their files: compare them with the roster.")
    complete = not problem and bool(state.covered)
    text = "\n".join(lines)
    return Verdict(not problem, count, first_bad, problem, epsilon, text, complete, everywhere)


def _headlines(state: Replay, count: int, problem: str, first_bad: int | None) -> list[str]:
    if problem:
        where = f"entry {first_bad}: " if first_bad is not None else ""
        return [f"BAD: {where}{problem} ({count} entries were read without fault)"]
    what = f"({count} entries, head {state.head})"
    if not state.covered:
        return [
            f"Ledger of {state.domain!r}: consistent, not proven complete {what}."
            " Only the peers' heads can show that nothing was cut off or rewritten."
        ]
    newest = max(state.covered.values())
    lines = [f"Ledger of {state.domain!r}: complete {what}."]
    lines += [f"Co-signed up to entry {size} by {name}." for name, size in state.covered.items()]
    lines += [
        f"Nothing was given of peer {key[:16]}, which may have co-signed more."
        for key in sorted(set(state.peers or ()) - state.witnesses - {state.key})
    ]
    if newest < count:
        lines.append(f"Entries {newest + 1} to {count} came after: only this node signed them yet.")
    return lines
