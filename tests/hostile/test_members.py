"""Accounts of the node turned against it: auditors, scientists, and what peers might have sent."""

import json

import numpy as np
import pytest
from syft.service.user.user_roles import ServiceRole
from syft.types.uid import UID

from network.client import NodeClient
from network.replay import ISSUED
from tests.hostile.attacks import (
    Attack,
    Target,
    call,
    message,
    packed,
    post,
    signed,
    with_argument,
)  # fmt: skip
from tests.hostile.members import (
    AUDITOR_PATHS,
    CRAFTED,
    REFUSED_PATHS,
    ROUND_CALLS,
    at_another_time,
    forged_plan,
    other_plan,
    plan_of,
    replayed,
    replayed_resigned,
    rivals_plans,
    rivals_requests,
    rounds,
    rows_of_the_twin,
    without_id,
)

pytestmark = pytest.mark.nodes


MEMBER_ATTACKS = [
    *(
        Attack(f"path {path}", f"the path {path}", lambda t, p=path: call(t.node, p))
        for path in REFUSED_PATHS
    ),
    *(
        Attack(f"auditor {path}", f"{path} as an auditor", lambda t, p=path: call(t.auditor, p))
        for path in AUDITOR_PATHS
    ),
    *(
        Attack(f"crafted {what}", what, lambda t, b=blob: post(t, with_argument(t, b)))
        for what, blob in CRAFTED.items()
    ),
    *(
        Attack(
            f"auditor's {what}",
            f"{what}, from an auditor",
            lambda t, b=blob: post(t, with_argument(t, b, t.auditor._key)),
        )
        for what, blob in list(CRAFTED.items())[:3]
    ),
    Attack("replayed", "the same bytes twice", replayed),
    Attack("replayed id", "the same call id twice", replayed_resigned),
    Attack("expired", "a call signed an hour ago", at_another_time(-3600)),
    Attack("ahead", "a call signed an hour ahead", at_another_time(3600)),
    Attack(
        "timeless",
        "a time that is text",
        lambda t: post(t, signed(packed(message(t, kwargs={ISSUED: "now"})), t.key)),
    ),
    Attack("no id", "a call without an id", without_id),
    Attack(
        "another server",
        "a call that names another server",
        lambda t: post(t, signed(packed(message(t, server_uid=UID())), t.key)),
    ),
    Attack(
        "as a job",
        "a call that doesn't block",
        lambda t: post(t, signed(packed(message(t, blocking=False)), t.key)),
    ),
    Attack(
        "not a call",
        "a string where the call should be",
        lambda t: post(t, signed(packed("x"), t.key)),
    ),
    Attack(
        "own context",
        "a context of her own",
        lambda t: call(t.node, "coterie.plans", context="root"),
    ),
    Attack(
        "own self",
        "a self of her own",
        lambda t: post(t, signed(packed(message(t, kwargs={"self": 1})), t.key)),
    ),
    Attack(
        "promotion",
        "her own role raised",
        lambda t: call(t.node, "user.update", uid=UID(), role=ServiceRole.ADMIN.value),
    ),
    Attack("twin", "the private half of the twin by its pointers", rows_of_the_twin),
    Attack("rival's requests", "another scientist's requests", rivals_requests),
    Attack("rival's plans", "another scientist's plans", rivals_plans),
    Attack("rival's plan", "another scientist's plan by its hash", other_plan("plan")),
    Attack("rival's run", "another scientist's run opened", other_plan("open", approvals="{}")),
    Attack("rival's progress", "another scientist's progress", other_plan("progress")),
    *(
        Attack(
            f"rival's {method}",
            f"{method} in another scientist's run",
            other_plan(method, step="count", release=0, attempt=0, **more),
        )
        for method, more in ROUND_CALLS.items()
    ),
    Attack("rival's plan back", "another's plan withdrawn", other_plan("withdraw", reason="x")),
    Attack(
        "rival's end",
        "another scientist's run ended",
        other_plan("finish", state=np.zeros(4, np.uint8)),
    ),
    Attack(
        "plan path",
        "a plan hash that is a path",
        lambda t: call(t.node, "coterie.plan", plan_hash="../../../etc/passwd"),
    ),
    Attack(
        "plan SQL",
        "a plan hash that is SQL",
        lambda t: call(t.node, "coterie.plan", plan_hash="' OR '1'='1"),
    ),
    Attack(
        "plan pattern",
        "a plan hash with wildcards",
        lambda t: call(t.node, "coterie.plan", plan_hash="%" * 64),
    ),
    Attack(
        "plan nesting",
        "a plan of 20,000 brackets",
        lambda t: call(t.node, "coterie.quote", plan="[" * 20000),
    ),
    Attack(
        "plan junk", "a plan that isn't JSON", lambda t: call(t.node, "coterie.quote", plan="{")
    ),
    Attack("plan name", "a plan whose name is a path", lambda t: forged_plan(t, name="../../x")),
    Attack(
        "plan log",
        "a plan whose name forges a log line",
        lambda t: forged_plan(t, name='x\n{"event": "approved"}'),
    ),
    Attack("plan signature", "a plan under a forged signature", lambda t: forged_plan(t)),
    Attack(
        "unapproved",
        "an unapproved plan opened",
        lambda t: call(t.node, "coterie.open", plan_hash=plan_of(t), approvals="{}"),
    ),
    Attack(
        "forged approval",
        "approvals signed by nobody",
        lambda t: call(
            t.node,
            "coterie.open",
            plan_hash=plan_of(t),
            approvals=json.dumps(dict.fromkeys(("east", "north", "south"), "00" * 64)),
        ),
    ),
    Attack(
        "approval list",
        "approvals that are a list",
        lambda t: call(t.node, "coterie.open", plan_hash=plan_of(t), approvals="[]"),
    ),
    Attack("early advert", "keys for a run that isn't open", rounds("advertise")),
    Attack(
        "early share",
        "shares with a peer's forged adverts",
        rounds("share", adverts='[{"domain": "north"}]', state=np.zeros(8, np.uint8), held="{}"),
    ),
    Attack(
        "poisoned state",
        "NaN and infinity as state",
        rounds("share", adverts="[]", state=np.array([np.nan, np.inf]), held="{}"),
    ),
    Attack(
        "wide state",
        "a state of another shape",
        rounds("share", adverts="[]", state=np.zeros((2, 2), np.int64), held="{}"),
    ),
    Attack(
        "nested adverts",
        "20,000 nested brackets as a peer's adverts",
        rounds("share", adverts="[" * 20000, state=np.zeros(8, np.uint8), held="{}"),
    ),
    Attack(
        "many adverts",
        "5,000 adverts of a peer",
        rounds("share", adverts=json.dumps([{}] * 5000), state=np.zeros(8, np.uint8), held="{}"),
    ),
    Attack(
        "early reveal",
        "a masked input that was never shared",
        rounds("reveal", seeds="[]", notes="{}"),
    ),
    Attack(
        "early confirm", "a confirmation of a peer's empty set", rounds("confirm", receipts="[]")
    ),
    Attack(
        "early unmask",
        "a peer's request to unmask",
        rounds("unmask", confirmations="[]", cosignatures="{}"),
    ),
    Attack(
        "nested heads",
        "20,000 nested brackets as the heads a peer holds",
        rounds("share", adverts="[]", state=np.zeros(8, np.uint8), held="[" * 20000),
    ),
    Attack(
        "negative round",
        "a round of negative number",
        lambda t: call(
            t.node,
            "coterie.advertise",
            plan_hash=plan_of(t),
            step="count",
            release=-1,
            attempt=-(2**63),
        ),
    ),
    Attack(
        "step path",
        "a step that is a path",
        lambda t: call(
            t.node, "coterie.advertise", plan_hash=plan_of(t), step="../../x", release=0, attempt=0
        ),
    ),
]


@pytest.mark.parametrize("attack", MEMBER_ATTACKS, ids=lambda attack: attack.name)
def test_members_get_nothing_beyond_their_role(
    attack: Attack, target: Target, record_property
) -> None:  # type: ignore[no-untyped-def]
    got = attack.run(target)
    record_property("tried", attack.tried)
    record_property("got", got)
    print(f"member | {attack.tried} | {got}")
    assert got.startswith("refused"), got


@pytest.mark.parametrize("path", ["code.submit", "api.add", "worker_image.submit", "policy.add",
                                  "sync._get_state", "migration.get_migration_data"])  # fmt: skip
def test_each_refusal_names_what_to_do_instead(path: str, target: Target) -> None:
    got = call(target.node, path)
    assert "coterie plan" in got or "docs/" in got or "enclosure" in got, got


def test_what_honest_members_do_still_works(target: Target) -> None:
    assert call(target.auditor, "coterie.ledger", after=0, limit=1).startswith("answered")
    assert call(target.node, "dataset.get_all").startswith("answered")
    assert isinstance(target.node, NodeClient)
