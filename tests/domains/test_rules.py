"""Standing rules: who may change them, from when on they apply, and what the ledger keeps of it."""

from collections.abc import Iterator
from datetime import time
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from domains.desk import Desk
from domains.rule_files import RulesRefused
from policies.amendments import Amendment, changes_between, loosened, sign_amendment
from policies.approvals import (
    create_owner_key,
    load_owner_key,
    owner_key_hex,
    read_statement,
    sign_statement,
)
from policies.canonical import sha256_hex
from policies.envelopes import read_consent
from policies.ledger import Ledger
from policies.owner_policy import OfficeHours, OwnerPolicy
from policies.verify import verify
from tests.desks import ACCOUNT, Desks, open_desk

DATA, NODE = "interactions", Ed25519PrivateKey.generate()
AGES_AGO, AGES_AHEAD = "1999-01-01T00:00:00+00:00", "2999-01-01T00:00:00+00:00"
ACCOUNT_EMAIL = "owner@north.example"


@pytest.fixture(scope="module")
def desks(tmp_path_factory: pytest.TempPathFactory) -> Desks:
    return Desks.create(tmp_path_factory.mktemp("desks"))


@pytest.fixture
def file(desks: Desks) -> Iterator[Path]:
    """North's policy file, put back by a signed change afterwards."""
    found = desks.north.dataset(DATA).policy_file
    before = found.read_text()
    yield found
    if found.read_text() != before:
        change(desks, before)


def signed(desks: Desks, text: str, **said: str) -> str:
    key = load_owner_key(desks.home.owner_key("north"), None)
    given = {"domain": "north", "data_set": DATA, "reason": "as agreed"} | said
    replaces = given.pop("replaces", str(desks.north.rules(DATA)["digest"]))
    return sign_amendment(key, given["domain"], given["data_set"], text, replaces,
                          by=ACCOUNT_EMAIL, reason=given["reason"])  # fmt: skip


def change(desks: Desks, text: str) -> dict:
    return desks.north.write_rules(DATA, text, signed(desks, text), ACCOUNT_EMAIL)


def test_signed_rules_apply_at_once_to_plans_and_to_the_budget(desks: Desks, file: Path) -> None:
    plan = desks.plan("how many")
    assert desks.north.quote(plan)["refusals"] == []
    written = file.read_text().replace("epsilon = 30.0", "epsilon = 25.0") + "max_releases = 1\n"
    rules = change(desks, written)
    assert (rules["text"], rules["applied"]) == (written, True)
    assert file.read_text() == written
    assert [r["rule"] for r in desks.north.quote(plan)["refusals"]] == ["max_releases"]
    assert desks.north.budgets()[0]["epsilon"] == 25.0
    assert desks.north.card()["datasets"][0]["epsilon"] == 25.0


def test_the_ledger_keeps_who_changed_which_rule_when_and_why(desks: Desks, file: Path) -> None:
    rules = change(desks, file.read_text() + "min_users = 7\n")
    newest = rules["history"][0]
    assert newest["changes"] == [["min_users", "100", "7"]]
    assert (newest["by"], newest["reason"]) == (ACCOUNT_EMAIL, "as agreed")
    entries = desks.north.ledger.entries()
    assert entries[-1].kind == "rules"
    owner = desks.north.card()["owner_key"]
    assert verify(entries, None, owner).ok
    assert "owner" in verify(entries, None, "ab" * 32).problem


def test_what_was_signed_is_taken_once_for_these_rules_here_only(desks: Desks, file: Path) -> None:
    lying, wanted = file.read_text(), file.read_text() + "min_users = 8\n"
    stranger = create_owner_key(file.parent / "stranger.pem", None)
    digest = sha256_hex(lying.encode())
    used = signed(desks, wanted)
    for text, signature, why in (
        (wanted + "\n", used, "not signed by"),
        (wanted, signed(desks, wanted, domain="east"), "not signed by"),
        (wanted, signed(desks, wanted, data_set="other"), "not signed by"),
        (wanted, sign_amendment(stranger, "north", DATA, wanted, digest), "not signed by"),
        (wanted, "", "not signed by"),
        (wanted, signed(desks, wanted, replaces="ab" * 32), "changed meanwhile"),
        (wanted, _dated(desks, wanted, digest, expires=AGES_AGO), "expired"),
        (wanted, _dated(desks, wanted, digest, signed=AGES_AHEAD), "in the future for north"),
        ("epsilon = -1", signed(desks, "epsilon = -1"), "epsilon"),
    ):
        with pytest.raises(RulesRefused, match=why):
            desks.north.write_rules(DATA, text, signature, ACCOUNT_EMAIL)
    assert file.read_text() == lying
    desks.north.write_rules(DATA, wanted, used, ACCOUNT_EMAIL)
    change(desks, lying)
    with pytest.raises(RulesRefused, match="used already"):
        desks.north.write_rules(DATA, wanted, used, ACCOUNT_EMAIL)
    for respelled in (used.replace('{"said"', '{ "said"'), used[:-130] + used[-130:].upper()):
        with pytest.raises(RulesRefused, match="not signed by"):
            desks.north.write_rules(DATA, wanted, respelled, ACCOUNT_EMAIL)


def _dated(desks: Desks, text: str, digest: str, **dates: str) -> str:
    key = load_owner_key(desks.home.owner_key("north"), None)
    signed = sign_amendment(key, "north", DATA, text, digest)
    said = read_statement(Amendment, owner_key_hex(key), "north", signed)
    assert said is not None
    return sign_statement(key, said.model_copy(update=dates))


@pytest.mark.parametrize("said", [f'second_approvers = ["{"a" * 64}"]', "public = true"])
def test_what_one_key_mustnt_decide_is_changed_in_the_file_only(
    desks: Desks, file: Path, said: str
) -> None:
    """What counts is the file as it lies there, even if the node hasn't read it yet."""
    before = file.read_text()
    other = "".join(line for line in before.splitlines(True) if "public" not in line) + said + "\n"
    with pytest.raises(RulesRefused, match="on the node's machine only"):
        change(desks, other)
    file.write_text(other)
    with pytest.raises(RulesRefused, match="on the node's machine only"):
        change(desks, before)
    assert not desks.north.rules(DATA)["applied"]
    file.write_text(before)


def test_where_two_persons_approve_one_key_makes_rules_stricter_only(tmp_path: Path) -> None:
    desks = Desks.create(tmp_path)
    file = desks.north.dataset(DATA).policy_file
    two = file.read_text() + f'second_approvers = ["{"a" * 64}"]\nmax_releases = 50\n'
    file.write_text(two)
    with pytest.raises(RulesRefused, match="loosens max_releases"):
        change(desks, two.replace("max_releases = 50", "max_releases = 51"))
    change(desks, two.replace("max_releases = 50", "max_releases = 49"))
    assert "max_releases = 49" in file.read_text()


@pytest.mark.parametrize(
    ("name", "stricter", "looser"),
    [
        ("epsilon", 1.0, 2.0),
        ("max_epsilon_per_plan", 1.0, None),
        ("period_days", 90, 30),
        ("min_noise_multiplier", 2.0, 0.5),
        ("allowed_operations", ("aten.mul",), ("aten.mul", "aten.sum")),
        ("allowed_models", (), None),
        ("comparisons", (), ("spu",)),
        ("advisory", (), ("max_releases",)),
    ],
)
def test_it_is_known_which_rules_allow_more(name: str, stricter: Any, looser: Any) -> None:
    less, more = OwnerPolicy(**{name: stricter}), OwnerPolicy(**{name: looser})
    assert loosened(less, more) == [name]
    assert loosened(more, less) == []
    assert loosened(less, less) == []


def test_office_hours_are_looser_unless_there_were_none() -> None:
    days = OfficeHours(days=("mon",), opens=time(9), closes=time(17), zone="UTC")
    more = days.model_copy(update={"closes": time(18)})
    assert loosened(OwnerPolicy(), OwnerPolicy(office_hours=days)) == []
    assert loosened(OwnerPolicy(office_hours=days), OwnerPolicy(office_hours=more)) == [
        "office_hours"
    ]


def test_a_signature_under_rules_approves_nothing(desks: Desks, file: Path) -> None:
    plan = desks.plan("no approval")
    desks.submit(plan)
    text = signed(desks, file.read_text())
    owner = str(desks.north.card()["owner_key"])
    assert read_consent(owner, "north", text) is None

    with pytest.raises(Exception, match="not by north's owner key"):
        desks.north.approve(plan.hash, ACCOUNT_EMAIL, text, "", "")


def test_a_file_changed_on_the_machine_is_recorded_when_the_node_starts(
    desks: Desks, file: Path
) -> None:
    before = file.read_text()
    file.write_text(before + "min_users = 9\n")
    assert not desks.north.rules(DATA)["applied"]
    again: Desk = open_desk(desks.home, "north")
    rules = again.rules(DATA)
    assert rules["applied"]
    newest = rules["history"][0]
    assert newest["changes"] == [["min_users", "100", "9"]]
    assert (newest["by"], newest["owner_key"]) == ("", "")
    assert "changed on the node's machine" in newest["reason"]
    assert verify(again.ledger.entries()).ok
    count = len(again.ledger.entries())
    assert len(open_desk(desks.home, "north").ledger.entries()) == count
    file.write_text(before)


def test_a_data_set_that_shares_the_budget_keeps_the_cap(desks: Desks, file: Path) -> None:
    folder = file.parent.with_name("twin")
    folder.mkdir()
    for name in ("dataset.toml", "policy.toml", "catalogue.txt"):
        text = (file.parent / name).read_text()
        (folder / name).write_text(text.replace(f'name = "{DATA}"', 'name = "twin"'))
    (folder / "data").symlink_to(file.parent / "data")
    both = open_desk(desks.home, "north")
    text = file.read_text().replace("epsilon = 30.0", "epsilon = 40.0")
    with pytest.raises(RulesRefused, match="'twin' shares"):
        both.write_rules(DATA, text, signed(desks, text), ACCOUNT_EMAIL)
    text = file.read_text() + "max_releases = 50\n"
    assert both.write_rules(DATA, text, signed(desks, text), ACCOUNT_EMAIL)["applied"]


def test_the_verifier_finds_rules_that_the_owner_did_not_sign(desks: Desks, tmp_path: Path) -> None:
    owner = str(desks.north.card()["owner_key"])
    text = signed(desks, "epsilon = 9.0")
    for number, wrong in enumerate(
        (
            {"rules": "ab" * 32},
            {"reason": "another"},
            {"data_set": "other"},
            {"signature": "no signature"},
            {"owner_key": "cd" * 32},
            {"changes": [["epsilon", "8"]]},
            {"population": "unknown"},
            {},
        )
    ):
        ledger = Ledger(f"sqlite:///{tmp_path / str(number)}.db", "north", NODE)
        ledger.open_budget("viewers", 8.0, 1e-5)
        said: dict[str, Any] = {
            "population": "viewers", "data_set": DATA, "by": "", "reason": "as agreed",
            "replaces": str(desks.north.rules(DATA)["digest"]),
            "rules": sha256_hex(b"epsilon = 9.0"), "changes": [["epsilon", "8", "9"]],
            "owner_key": owner, "signature": text,
        }  # fmt: skip
        ledger.amendments.record(**said)
        assert verify(ledger.entries(), None, owner).ok
        ledger.amendments.record(**said | wrong)
        verdict = verify(ledger.entries(), None, owner)
        assert verdict.first_bad == 4, wrong
        assert ("was used before" in verdict.problem) == (wrong == {}), wrong


def test_changes_are_told_setting_by_setting() -> None:
    before = OwnerPolicy(epsilon=2.0, delta=1e-5)
    after = OwnerPolicy(
        epsilon=8.0, delta=1e-5, advisory=("max_releases",), office_hours=OfficeHours(zone="UTC")
    )
    assert changes_between(before, before) == []
    told = {name: (old, new) for name, old, new in changes_between(before, after)}
    assert told["epsilon"] == ("2", "8")
    assert told["advisory"] == ("none", "max_releases")
    assert told["office_hours"][1].startswith("days mon, tue")
    assert ACCOUNT
