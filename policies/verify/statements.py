"""What people signed with keys that no node has, and whether the ledger's entries say the same."""

from collections import Counter
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from policies.verify.evidence import CLOCK_SKEW, HEX64, statement_of, utc
from policies.verify.fields import check_changes
from policies.verify.spending import Mechanism

Expect = Callable[[bool, str], None]
"""Raises what is wrong, at the entry that is read, unless it holds."""


def check_approval(
    body: Mapping[str, Any], domain: str, now: datetime, expect: Expect
) -> tuple[dict[str, Any], str]:
    """The approval or envelope under which an owner, and perhaps a second person, approved a plan,
    and when the first of their signatures expires.

    Args:
        now: when the entry was written.
    """
    said = _approved(body, body["owner_key"], body["signature"], domain, now, expect, "owner")
    if said["kind"] == "approval":
        same = said["explanation"] in ("", body["explanation"])
        expect(same, "the owner was shown something else than the entry says")
    if "second_key" in body or "second" in body:
        expect({"second_key", "second"} <= body.keys(), "it lacks half of a second person's yes")
        expect(body["second_key"] != body["owner_key"], "the owner signed for two")
        second = _approved(
            body, body["second_key"], body["second"], domain, now, expect, "second person"
        )
        expect(second["kind"] == "approval", "the second person didn't approve this very plan")
        return said, min(said["expires"], second["expires"])
    return said, said["expires"]


def _approved(
    body: Mapping[str, Any],
    key: str,
    signature: str,
    domain: str,
    now: datetime,
    expect: Expect,
    who: str,
) -> dict[str, Any]:
    said = statement_of(key, signature) or {"kind": None}
    fits = (
        HEX64.fullmatch(body["plan"]) is not None
        and said["kind"] in ("approval", "envelope")
        and said["domain"] == domain
        and (said["kind"] == "envelope" or said["plan"] == body["plan"])
    )
    expect(fits, f"the {who}'s signature doesn't fit the plan")
    _check_signed_before(said, now, expect)
    expect(utc(said["expires"]) > now, f"the approval had expired {said['expires']}")
    return said


def check_envelope(
    summary: Mapping[str, Any], allowed: Counter[Mechanism], said: Mapping[str, Any], expect: Expect
) -> None:
    """What the submission tells of a plan must lie within what was approved in advance."""
    within = (
        summary["dataset"] == said["data_set"]
        and summary["author"] in said["scientists"]
        and summary["roster_hash"] == said["roster"]
        and summary["model"] in said["models"]
        and said["like"] in (None, summary["like"])
        and float(summary["delta"]) <= said["delta"]
        and allowed.total() <= said["releases"]
        and min(noise for noise, _ in allowed) >= said["noise_multiplier"]
    )
    expect(within, "the plan isn't within the envelope that its owner signed")


def check_succession(body: Mapping[str, Any], domain: str, expect: Expect) -> None:
    """Both keys must have signed: either alone could be put before or behind the owner's."""
    old, new = body["replaces"], body["owner_key"]
    said = statement_of(old, body["signature"])
    expect(
        said is not None and said == statement_of(new, body["consent"]),
        "the owner's two keys didn't sign the same",
    )
    named = [(said or {}).get(name) for name in ("kind", "domain", "replaces", "owner_key")]
    expect(
        named == ["succession", domain, old, new] and old != new,
        "the owner's keys signed something else",
    )


def check_rules(body: Mapping[str, Any], domain: str, now: datetime, expect: Expect) -> bool:
    """Whether the owner signed these rules; False where the file itself was changed, as the node
    found when it started."""
    digests = body["replaces"], body["rules"]
    expect(all(map(HEX64.fullmatch, digests)), "no hashes of rules")
    expect(check_changes(body["changes"]), "its changes aren't settings before and after")
    if (body["owner_key"], body["signature"]) == ("", ""):
        return False
    said = statement_of(body["owner_key"], body["signature"]) or {"kind": None}
    fits = said["kind"] == "rules" and said["domain"] == domain
    expect(fits, "the owner's signature doesn't fit the rules")
    same = ("data_set", "replaces", "rules", "reason")
    expect(all(said[name] == body[name] for name in same), "the owner signed other rules")
    _check_signed_before(said, now, expect)
    expect(utc(said["expires"]) > now, f"what was signed expired {said['expires']}")
    return True


def _check_signed_before(said: Mapping[str, Any], now: datetime, expect: Expect) -> None:
    signed = utc(said["signed"])
    expect(signed <= now + CLOCK_SKEW, f"it was signed {signed}, after it had been recorded")
