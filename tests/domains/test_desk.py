"""The owner's desk in one process: two-person approval, office hours, envelopes, refusals."""

import json
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

import coterie as ct
from coterie.home import Home
from coterie.partners import add_data, create_domain
from domains.dataset import load_datasets
from domains.desk import Desk, DeskRefused
from domains.folder import Peer, public_hex
from domains.judge import Judge
from policies.accounting import RenyiFilter
from policies.approvals import (
    load_owner_key,
    owner_key_hex,
    sign_approval,
    sign_submission,
    verify_approval,
)
from policies.canonical import sha256_hex
from policies.envelopes import Envelope, sign_envelope
from policies.ledger import Ledger, NotApproved
from policies.owner_policy import DAYS, OfficeHours, OwnerPolicy, OwnerPolicyError
from policies.plan import Plan, RosterEntry
from policies.verify import verify
from tests.network_of_three import counting_plan

AUTHOR, SECOND = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
ACCOUNT = "ab" * 32
PEERS = {
    name: Peer(node_key=owner_key_hex(Ed25519PrivateKey.generate()),
               owner_key=owner_key_hex(Ed25519PrivateKey.generate()))
    for name in ("east", "south")
}  # fmt: skip


@dataclass
class Office:
    """A desk, its ledger and the keys of its owner and of an author."""

    desk: Desk
    judge: Judge
    ledger: Ledger
    owner: Ed25519PrivateKey
    roster: list[RosterEntry]
    data: ct.DataSet
    hubs: list[str]

    def plan(self, purpose: str, epsilon: float = 0.5) -> Plan:
        plan = counting_plan(self.data, purpose, epsilon, releases=2)
        return plan.bind(self.roster, owner_key_hex(AUTHOR))

    def submit(self, plan: Plan) -> dict[str, Any]:
        return self.desk.submit(plan, ACCOUNT, sign_submission(AUTHOR, plan.hash, ACCOUNT))

    def signed(self, plan: Plan, key: Ed25519PrivateKey) -> str:
        shown = sha256_hex(self.desk.explain(plan).encode())
        return sign_approval(key, plan.hash, "north", by="owner", explanation=shown)

    def approve(self, plan: Plan, key: Ed25519PrivateKey) -> str:
        return self.desk.approve(plan.hash, "owner", self.signed(plan, key), "", "")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    path = tmp_path_factory.mktemp("home")
    place = Home(path)
    create_domain(place, "north", "127.0.0.1", 8199)
    (path / "items.txt").write_text("".join(f"item-{i}\n" for i in range(30)))
    (path / "rows.csv").write_text("user,item\nu,item-1\nv,item-2\n")
    add_data(place.domain("north"), file=path / "rows.csv", catalogue=path / "items.txt",
             dataset="interactions", population="viewers", users=100, interactions_per_user=16,
             holdout=None, epsilon=4.0, public=False)  # fmt: skip
    return place


Open = Callable[..., Office]


@pytest.fixture
def office(home: Home, tmp_path: Path) -> Iterator[Open]:
    opened: list[Ledger] = []
    hubs: list[str] = []
    folder = home.domain("north")
    key, settings = public_hex(folder.node_key()), folder.settings()

    def with_rules(**rules: Any) -> Office:
        ledger = Ledger(f"sqlite:///{tmp_path}/ledger.db", "north", folder.node_key())
        opened.append(ledger)
        datasets = {
            name: replace(each, policy=OwnerPolicy(**{"epsilon": 4.0, **rules}))
            for name, each in load_datasets(folder).items()
        }
        desk = Desk(
            settings, key, ledger, datasets, tmp_path / "plans", lambda: PEERS, lambda: hubs
        )
        judge = Judge(settings, key, ledger, lambda: PEERS, lambda: hubs)
        declared = datasets["interactions"].declaration
        roster = [RosterEntry(name="north", server_uid=settings.server_uid, node_key=key,
                              owner_key=settings.owner_key)]  # fmt: skip
        roster += [
            RosterEntry(name=name, server_uid=f"{i}" * 32, **peer.model_dump())
            for i, (name, peer) in enumerate(PEERS.items())
        ]
        data = ct.DataSet("interactions", 30, 16, 100, declared.catalogue_hash, False)
        owner = load_owner_key(home.owner_key("north"), None)
        return Office(desk, judge, ledger, owner, roster, data, hubs)

    yield with_rules
    for ledger in opened:
        verdict = verify(ledger.entries(), key)
        assert verdict.ok, verdict.text
        ledger.dispose()


def test_no_hub_of_ours_and_no_account_deals(office: Open) -> None:
    dealer, hub = "d1" * 32, "e2" * 32
    here = office(dealers=(dealer, hub, ACCOUNT))

    def counted(state, user):  # type: ignore[no-untyped-def]
        return {"counts": torch.zeros(30).scatter_add(0, user.items, user.mask)}

    def dealt_by(key: str) -> Plan:
        step = ct.Sum("count", counted, 4.0, releases=1, kept=True)
        plan = ct.Plan("kept", key, here.data, [step], dealer=ct.Dealer(name="notary", key=key),
                       epsilon=0.5)  # fmt: skip
        return plan.bind(here.roster, owner_key_hex(AUTHOR))

    here.hubs.append(hub)
    for key in (hub, ACCOUNT, owner_key_hex(AUTHOR)):
        answer = here.submit(dealt_by(key))
        assert answer["status"] == "refused"
        assert "party of its own" in str(answer)
    plan = dealt_by(dealer)
    assert here.submit(plan)["status"] == "pending"
    assert here.desk.why_not_roster(plan) is None
    # A node asks this at every call of a run, so also when triples come.
    here.hubs.append(dealer)
    assert "party of its own" in str(here.desk.why_not_roster(plan))


def test_no_hub_of_ours_and_no_account_holds_the_key_of_ckks(office: Open) -> None:
    """The domains take turns at holding it, so none of them may be whom it is kept from."""
    here = office()
    partner = here.roster[-1].node_key

    def under_ckks(purpose: str) -> Plan:
        counted = counting_plan(here.data, purpose, 0.5, releases=2)
        return replace(counted, aggregation="ckks").bind(here.roster, owner_key_hex(AUTHOR))

    plan = under_ckks("before")
    assert here.submit(plan)["status"] == "pending"
    assert here.desk.why_not_roster(plan) is None
    here.hubs.append(partner)
    assert "a hub mustn't be among them" in str(here.submit(under_ckks("after")))
    # A plan that was there before a partner became a hub runs no further.
    assert "a hub mustn't be among them" in str(here.desk.why_not_roster(plan))


def test_two_persons_must_sign_before_anything_is_reserved(office: Open) -> None:
    here = office(second_approvers=(owner_key_hex(SECOND),))
    plan = here.plan("by two")
    assert here.submit(plan)["status"] == "pending"
    assert here.approve(plan, here.owner) == "awaiting signature"
    assert here.approve(plan, here.owner) == "awaiting signature", "the same person twice is one"
    one = replace(plan.events()[0], count=1)
    with pytest.raises(NotApproved):
        here.ledger.reserve(plan.hash, "count", 0, 0, one)
    with pytest.raises(DeskRefused, match="not by north's owner key"):
        here.approve(plan, AUTHOR)
    assert here.approve(plan, SECOND) == "approved"
    here.ledger.reserve(plan.hash, "count", 0, 0, one)
    said = {each.kind: json.loads(each.body) for each in here.ledger.entries()}
    shown = sha256_hex(here.desk.explain(plan).encode())
    assert said["approval"]["second_key"] == owner_key_hex(SECOND)
    assert verify_approval(
        said["approval"]["second_key"], plan.hash, "north", said["approval"]["second"]
    )
    assert (said["consent"]["by"], len(said["consent"]["explanation"])) == ("owner", len(shown))
    own = owner_key_hex(here.owner)
    alone = office(second_approvers=(own,))
    another = alone.plan("by one who is named as two")
    alone.submit(another)
    assert alone.approve(another, here.owner) == "awaiting signature"
    envelope = around(here, plan, plans=3)
    with pytest.raises(DeskRefused, match="two persons"):
        here.desk.preapprove(envelope)


def test_the_owner_s_own_key_is_no_second_person(home: Home, tmp_path: Path) -> None:
    shutil.copytree(home.path, tmp_path / "home")
    folder = Home(tmp_path / "home").domain("north")
    own = folder.settings().owner_key
    (folder.datasets / "interactions" / "policy.toml").write_text(f'second_approvers = ["{own}"]')
    with pytest.raises(OwnerPolicyError, match="it names the owner's own key"):
        load_datasets(folder)


@pytest.mark.parametrize(
    ("limit", "most", "why"), [("MOST_PLANS_A_DAY", 2, "a day"), ("MOST_PLAN_BYTES", 1, "keeps")]
)
def test_one_account_fills_neither_the_disk_nor_the_owners_day(
    limit: str, most: int, why: str, office: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = office(max_releases=2)
    first, second = here.plan("one"), here.plan("two", 3.9)
    here.submit(first)
    here.submit(second)
    monkeypatch.setattr("domains.desk." + limit, most)
    with pytest.raises(DeskRefused, match=why):
        here.submit(here.plan("three"))
    assert here.submit(first)["new"] is False, "what is known is told all the same"
    another = here.plan("three")
    signature = sign_submission(AUTHOR, another.hash, "e" * 64)
    assert here.desk.submit(another, "e" * 64, signature)["new"], "another account has its own"


def test_a_second_account_of_the_same_author_has_no_room_of_its_own(office: Open) -> None:
    here = office(max_epsilon_per_scientist=0.8)
    first, second = here.plan("by one account"), here.plan("by another account")
    here.submit(first)
    here.approve(first, here.owner)
    other = "cd" * 32
    answer = here.desk.submit(second, other, sign_submission(AUTHOR, second.hash, other))
    assert [each["rule"] for each in answer["refusals"]] == ["max_epsilon_per_scientist"]


def test_nothing_is_approved_while_the_office_is_closed(office: Open) -> None:
    today = datetime.now(UTC).weekday()
    closed = OfficeHours(days=(DAYS[(today + 3) % 7],))
    here = office(office_hours=closed)
    first, again = here.plan("seed 1"), here.plan("seed 2")
    here.submit(first)
    with pytest.raises(DeskRefused, match="office_hours: Approvals are taken"):
        here.approve(first, here.owner)
    here.desk.preapprove(around(here, first, plans=3))
    assert here.submit(again)["status"] == "pending", "an envelope doesn't work nights either"
    later = office()
    assert later.approve(first, later.owner) == "approved"


def test_an_envelope_approves_no_more_plans_than_it_says_when_many_come_at_once(
    office: Open,
) -> None:
    here = office()
    first = here.plan("seed 0", 0.2)
    here.submit(first)
    here.desk.preapprove(around(here, first, plans=2))
    plans = [here.plan(f"seed {number}", 0.2) for number in range(1, 7)]
    start, statuses = threading.Barrier(len(plans)), list[str]()

    def submit(plan: Plan) -> None:
        start.wait()
        statuses.append(here.submit(plan)["status"])

    threads = [threading.Thread(target=submit, args=(plan,)) for plan in plans]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(statuses) == ["approved"] * 2 + ["pending"] * 4


@pytest.mark.parametrize(
    ("plans", "epsilon"), [(2, 1e3), (99, 1.01)], ids=["their number", "epsilon altogether"]
)
def test_either_limit_of_an_envelope_ends_it_alone(
    plans: int, epsilon: float, office: Open
) -> None:
    """Epsilon altogether in multiples of what two of the plans cost."""
    here = office()
    first = here.plan("seed 0", 0.2)
    here.submit(first)
    two = RenyiFilter(first.delta).epsilon(first.events() * 2)
    here.desk.preapprove(around(here, first, plans, total_epsilon=epsilon * two))
    statuses = [here.submit(here.plan(f"seed {n}", 0.2))["status"] for n in range(1, 5)]
    assert statuses == ["approved"] * 2 + ["pending"] * 2
    (kept,) = here.desk.envelopes()
    assert kept["used"] == 2


def test_what_no_longer_fits_is_refused_with_what_would(office: Open) -> None:
    here = office()
    first, second = (here.plan(f"a large one {number}", 3.0) for number in range(2))
    here.submit(first)
    here.submit(second)
    here.approve(first, here.owner)
    with pytest.raises(DeskRefused) as refused:
        here.approve(second, here.owner)
    for line in (
        "Requested  epsilon",
        "Remaining  epsilon",
        "Short by   epsilon",
        "A person who is a user at every partner: epsilon",
        "A plan that fits: noise multiplier",
    ):
        assert line in str(refused.value)


@pytest.mark.parametrize(
    ("epsilon", "releases", "rules"),
    [
        (20.0, 3, {}),
        (3.0, 12, {"max_releases": 7, "max_epsilon_per_plan": 0.7}),
        (30.0, 19, {"epsilon": 1.0}),
        (20.0, 3, {"epsilon": 0.02}),
        (6.0, 9, {"min_noise_multiplier": 3.0, "max_epsilon_per_scientist": 0.9}),
        (2.0, 5, {"max_epsilon_per_period": 0.3, "max_releases": 4}),
    ],
)
def test_every_plan_that_is_offered_is_taken_when_it_is_submitted(
    office: Open, epsilon: float, releases: int, rules: dict[str, Any]
) -> None:
    here = office(**rules)
    asked = counting_plan(here.data, "much", epsilon, releases)
    plan = asked.bind(here.roster, owner_key_hex(AUTHOR))
    answer = here.submit(plan)
    assert answer["status"] == "refused"
    dataset = here.desk.dataset("interactions")
    offered = here.judge.nearest(plan, dataset, here.judge.limits(plan, dataset, ACCOUNT))
    assert [offer.text for offer in offered] == [offer["text"] for offer in answer["offers"]]
    assert offered
    for offer in offered:
        assert here.submit(offer.plan)["refusals"] == []
        assert offer.text in answer["refusals"][-1]["message"]
    assert here.approve(offered[0].plan, here.owner) == "approved"


def test_a_verdict_is_replayed_when_the_ledger_grew(office: Open) -> None:
    here = office()
    first = here.desk.verdict()
    assert here.desk.verdict() is first
    here.submit(here.plan("one more"))
    assert here.desk.verdict()["entries"] > first["entries"]


def test_an_envelope_holds_no_longer_than_an_approval_may(office: Open) -> None:
    here = office(max_approval_days=30)
    plan = here.plan("seed 0")
    here.submit(plan)
    here.desk.preapprove(around(here, plan, plans=3, days=30))
    with pytest.raises(DeskRefused, match="at most 30 days"):
        here.desk.preapprove(around(here, plan, plans=3, days=31))


def test_what_is_signed_in_the_future_is_refused(office: Open) -> None:
    here, tomorrow = office(), datetime.now(UTC) + timedelta(days=1)
    plan = here.plan("by a clock that is ahead")
    here.submit(plan)
    shown = sha256_hex(here.desk.explain(plan).encode())
    early = sign_approval(here.owner, plan.hash, "north", explanation=shown, now=tomorrow)
    with pytest.raises(DeskRefused, match="in the future for north"):
        here.desk.approve(plan.hash, "owner", early, "", "")
    envelope = Envelope.around(plan, "north", plans=1, days=7, explanation=shown, now=tomorrow)
    with pytest.raises(DeskRefused, match="in the future for north"):
        here.desk.preapprove(sign_envelope(here.owner, envelope))


def around(here: Office, plan: Plan, plans: int, days: int = 7, **limits: float) -> str:
    shown = sha256_hex(here.desk.explain(plan).encode())
    envelope = Envelope.around(plan, "north", plans=plans, days=days, explanation=shown, **limits)
    return sign_envelope(here.owner, envelope)
