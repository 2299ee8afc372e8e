"""What a partner's owner decided about a plan, as its scientist passes it on.

Nodes don't ask each other. An approval carries the owner's own signature. Whatever else was decided
is proven by the partner's ledger: the entry, and the path to a head that its node signed. So the
one who carries it can keep it back, and change nothing.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from domains.folder import write_private
from policies.envelopes import read_consent, why_not_approved
from policies.plan import Plan, RosterEntry
from policies.verify import proves

_STATUS = {"denial": "denied", "refusal": "refused", "closure": "closed"}
_LONGEST = 100_000


@dataclass(frozen=True)
class Told:
    """One partner's decision.

    Attributes:
        status: approved, denied, refused (by a rule) or closed, as in the ledger.
        by: who decided; empty: a rule, or the end of a run.
        signed: when, UTC.
        expires: until when an approval holds; else empty.
    """

    status: str
    by: str
    reason: str
    signed: str
    expires: str = ""


def keep_told(folder: Path, plan: Plan, said: Mapping[str, Any]) -> None:
    """Keep what partners decided; what isn't theirs, or is older than what is kept, is passed over.

    Args:
        said: by domain, an owner's signed consent as text, or the proof of an entry as JSON value.
    """
    for entry in plan.roster:
        word = said.get(entry.name)
        text = word if isinstance(word, str) else json.dumps(word)
        found, kept = _read(plan, entry, text), told_by(folder, plan, entry)
        if found is not None and (kept is None or kept.signed <= found.signed):
            write_private(_file(folder, plan, entry), text)


def told_by(folder: Path, plan: Plan, entry: RosterEntry) -> Told | None:
    """What a partner decided, as far as it was told here."""
    file = _file(folder, plan, entry)
    return _read(plan, entry, file.read_text()) if file.exists() else None


def told_json(told: Told | None) -> dict[str, str] | None:
    """As JSON values."""
    return None if told is None else asdict(told)


def _file(folder: Path, plan: Plan, entry: RosterEntry) -> Path:
    return folder / f"{plan.hash}.{entry.name}.told"


def _read(plan: Plan, entry: RosterEntry, text: str) -> Told | None:
    if not text or len(text) > _LONGEST:
        return None
    if why_not_approved(plan, entry.owner_key, entry.name, text) is None:
        consent = read_consent(entry.owner_key, entry.name, text)
        assert consent is not None
        return Told("approved", consent.by, consent.reason, consent.signed, consent.expires)
    return _proven(plan, entry, text)


def _proven(plan: Plan, entry: RosterEntry, text: str) -> Told | None:
    try:
        proof = json.loads(text)
        if not isinstance(proof, dict) or not proves(proof, entry.node_key):
            return None
        status, body = _STATUS[proof["entry"]["kind"]], json.loads(proof["entry"]["body"])
        if body["plan"] != plan.hash:
            return None
        rule = f"{body['rule']}: " if "rule" in body else ""
        return Told(status, body.get("by", ""), rule + body["reason"], body["time"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
