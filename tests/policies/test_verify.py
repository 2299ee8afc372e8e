"""The auditor's verifier: finds every edit it can, names it, and recomputes epsilon by itself."""

import ast
import dataclasses
import json
import random
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from dp_accounting.dp_event import GaussianDpEvent, PoissonSampledDpEvent
from dp_accounting.rdp import RdpAccountant

import policies.verify
from policies.accounting import ORDERS, Event, RenyiFilter
from policies.approvals import owner_key_hex, sign_approval
from policies.canonical import canonical, sha256_hex
from policies.envelopes import Envelope, sign_envelope
from policies.ledger import GENESIS, Budget, Entry, Ledger, LedgerError
from policies.verify import verify
from policies.verify.spending import OLD_ORDERS

DELTA = 1e-5
NODE, OWNER = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
NODE_HEX, OWNER_HEX = owner_key_hex(NODE), owner_key_hex(OWNER)
PLAN, SECOND, UNSIGNED = "a" * 64, "b" * 64, "c" * 64
TRAIN, COUNT = Event(4.0, 1.0, 1), Event(6.0, 0.2, 1)
Tamper = Callable[[list[Entry]], object]
REPOSITORY = Path(policies.verify.__file__).parents[2]


def fill(ledger: Ledger) -> Budget:
    ledger.open_budget("shoppers", 8.0, DELTA)
    for plan in (PLAN, SECOND, UNSIGNED):
        events = [Event(4.0, 1.0, 4), Event(6.0, 0.2, 2)]
        ledger.submit(plan, "plan", "s", "shoppers", events, {}, spare_attempts=1)
    for plan in (PLAN, SECOND):
        signature = sign_approval(OWNER, plan, "alpha")
        ledger.approve(plan, "owner", OWNER_HEX, signature, "e" * 64)
    ledger.consent(UNSIGNED, "owner")
    for plan in (PLAN, SECOND):
        ledger.reserve(plan, "count", 0, 0, COUNT)
        ledger.charge(plan, "count", 0, 0, sha256_hex(plan.encode()))
        ledger.reserve(plan, "train", 0, 0, TRAIN)
    ledger.void(PLAN, "train", 0, 0, "peer away")
    ledger.charge(SECOND, "train", 0, 0, "5" * 64)
    ledger.reserve(SECOND, "train", 0, 1, TRAIN)
    ledger.close(PLAN, "done")
    return ledger.budget("shoppers")


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Budget, list[Entry]]:
    path = tmp_path_factory.mktemp("ledger") / "ledger.sqlite"
    ledger = Ledger(f"sqlite:///{path}", "alpha", NODE)
    budget, entries = fill(ledger), ledger.entries()
    ledger.dispose()
    return path, budget, entries


@pytest.fixture
def entries(original: tuple[Path, Budget, list[Entry]]) -> list[Entry]:
    return list(original[2])


@pytest.fixture
def copy(original: tuple[Path, Budget, list[Entry]], tmp_path: Path) -> Path:
    path = tmp_path / "copy.sqlite"
    with sqlite3.connect(original[0]) as source, sqlite3.connect(path) as target:
        source.backup(target)
    source.close()
    target.close()
    return path


def resign(entries: list[Entry], key: Ed25519PrivateKey = NODE) -> list[Entry]:
    """The chain made anew over these kinds and bodies, as the holder of the key could."""
    chain: list[Entry] = []
    for number, entry in enumerate(entries, start=1):
        previous = chain[-1].hash if chain else GENESIS
        head = f"coterie-ledger-entry-v1\n{number}\n{previous}\n{entry.kind}\n"
        digest = sha256_hex((head + entry.body).encode())
        signature = key.sign(f"coterie-ledger-v1:{digest}".encode()).hex()
        chain.append(Entry(number, previous, entry.kind, entry.body, digest, signature))
    return chain


def tamper_file(path: Path, *changes: str) -> None:
    """What whoever has the file can do: take the guards off, change rows, put the guards back."""
    with sqlite3.connect(path) as connection:
        found = "SELECT name, sql FROM sqlite_master WHERE type = 'trigger'"
        guards = connection.execute(found).fetchall()
        for name, _ in guards:
            connection.execute(f"DROP TRIGGER {name}")
        for change in changes:
            assert connection.execute(change).rowcount > 0
        for _, sql in guards:
            connection.execute(sql)
    connection.close()


def edit(entry: Entry, **changes: Any) -> Entry:
    body = canonical(json.loads(entry.body) | changes).decode()
    return dataclasses.replace(entry, body=body)


def place(entries: list[Entry], kind: str, nth: int = 0) -> int:
    return [position for position, entry in enumerate(entries) if entry.kind == kind][nth]


# What an honest ledger gets


def test_an_honest_ledger_is_consistent_but_not_proven_complete(
    original: tuple[Path, Budget, list[Entry]],
) -> None:
    path, budget, entries = original
    for ledger in (path, str(path), entries):
        verdict = verify(ledger, NODE_HEX, OWNER_HEX)
        assert (verdict.ok, verdict.first_bad, verdict.problem) == (True, None, "")
        assert verdict.entries == len(entries)
        assert "consistent, not proven complete" in verdict.text
        assert entries[-1].hash in verdict.text
        assert verdict.epsilon == {"shoppers": pytest.approx(budget.spent, rel=1e-9)}


def test_epsilon_is_recomputed_from_what_was_released(
    original: tuple[Path, Budget, list[Entry]],
) -> None:
    filter_ = RenyiFilter.of_cap(8.0, DELTA)
    released = [Event(4.0, 1.0, 2), Event(6.0, 0.2, 2)]
    expected = filter_.epsilon(released)
    verdict = verify(original[2], NODE_HEX)
    assert verdict.epsilon["shoppers"] == pytest.approx(expected, rel=1e-9)
    bound = f"at delta 1e-05; for a person who is a user at every partner {expected:.3f}"
    assert f"epsilon {expected:.3f} (of 8.000) {bound}" in verdict.text
    accountant = RdpAccountant()
    accountant.compose(GaussianDpEvent(4.0), 2)
    accountant.compose(PoissonSampledDpEvent(0.2, GaussianDpEvent(6.0)), 2)
    assert expected >= accountant.get_epsilon(DELTA), "never less than full composition"
    assert "add/remove one user with all her interactions, per domain" in verdict.text


def test_the_verifier_shares_no_code_with_the_writer() -> None:
    modules = sorted(Path(policies.verify.__file__).parent.glob("*.py"))
    imported = {
        name
        for module in modules
        for node in ast.walk(ast.parse(module.read_text()))
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or "."]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    ours = {"policies", "domains", "network", "coterie", "recommenders", "dashboard", "."}
    known = {name for name in imported if name.split(".")[0] in ours}
    assert {name for name in known if not name.startswith("policies.verify")} == set()
    assert OLD_ORDERS == ORDERS


def test_random_ledgers_agree_with_their_verifier(tmp_path: Path) -> None:
    dice = random.Random(7)
    for number in range(5):
        path = tmp_path / f"{number}.sqlite"
        ledger = Ledger(f"sqlite:///{path}", "alpha", NODE)
        ledger.open_budget("shoppers", dice.uniform(2, 10), DELTA)
        plans = [f"{index:064x}" for index in range(4)]
        for plan in plans:
            events = [Event(4.0, 1.0, 4), Event(6.0, 0.2, 2)]
            ledger.submit(plan, "plan", "s", "shoppers", events, {}, spare_attempts=1)
        for _ in range(80):
            try:
                random_step(ledger, dice, dice.choice(plans))
            except LedgerError:
                continue
        verdict = verify(path, NODE_HEX, OWNER_HEX)
        assert verdict.ok, verdict.text
        spent = ledger.budget("shoppers").spent
        assert verdict.epsilon["shoppers"] == pytest.approx(spent, rel=1e-9)
        ledger.dispose()


def random_step(ledger: Ledger, dice: random.Random, plan: str) -> None:
    where = (plan, dice.choice(["train", "count"]), dice.randrange(4), dice.randrange(3))
    event = TRAIN if where[1] == "train" else COUNT
    signature = sign_approval(OWNER, plan, "alpha")
    steps = [lambda: ledger.reserve(*where, event)] * 8
    steps += [lambda: ledger.charge(*where, "5" * 64)] * 8
    steps += [lambda: ledger.void(*where, "away")] * 3
    steps += [lambda: ledger.approve(plan, "owner", OWNER_HEX, signature, "e" * 64)] * 6
    steps += [
        lambda: ledger.close(plan, "done"),
        lambda: ledger.deny(plan, "owner", "no"),
        lambda: ledger.refuse(plan, "rule", "why"),
        lambda: ledger.open_budget("shoppers", dice.uniform(2, 10), DELTA),
    ]
    dice.choice(steps)()


# What an outsider without the node's key can do


@pytest.mark.parametrize("field", ["body", "kind", "hash", "previous", "signature", "index"])
def test_an_edited_field_is_found_at_its_entry(entries: list[Entry], field: str) -> None:
    position = place(entries, "charge")
    value = getattr(entries[position], field)
    new = value + 1 if field == "index" else value.replace(value[10:12], "zz", 1) or value
    entries[position] = dataclasses.replace(entries[position], **{field: new})
    if field == "kind":
        entries[position] = dataclasses.replace(entries[position], kind="void")
    verdict = verify(entries, NODE_HEX)
    assert (verdict.ok, verdict.first_bad) == (False, position + 1)
    assert verdict.entries == position
    assert f"BAD: entry {position + 1}" in verdict.text


def test_deleted_and_swapped_entries_are_found(entries: list[Entry]) -> None:
    without = entries[:5] + entries[6:]
    assert verify(without, NODE_HEX).first_bad == 6
    swapped = [*entries[:5], entries[6], entries[5], *entries[7:]]
    assert verify(swapped, NODE_HEX).first_bad == 6
    assert verify(entries[1:], NODE_HEX).first_bad == 1
    assert not verify([], NODE_HEX).ok


def test_a_chain_under_another_key_is_found_if_the_key_is_known(entries: list[Entry]) -> None:
    other = Ed25519PrivateKey.generate()
    forged = [edit(entries[0], node_key=owner_key_hex(other)), *entries[1:]]
    verdict = verify(resign(forged, other), NODE_HEX)
    assert (verdict.ok, verdict.first_bad) == (False, 1)
    unpinned = verify(resign(forged, other))
    assert unpinned.ok
    assert "taken from the ledger itself" in unpinned.text
    assert verify(resign(entries, other), NODE_HEX).problem == "its signature isn't the node's"


@pytest.mark.parametrize(
    ("table", "change"),
    [
        ("ledgerattempt", "DELETE FROM ledgerattempt WHERE step = 'train'"),
        ("ledgerattempt", "UPDATE ledgerattempt SET state = 'void' WHERE state = 'charged'"),
        ("ledgerattempt", "UPDATE ledgerattempt SET noise_multiplier = 400"),
        ("ledgerplan", f"UPDATE ledgerplan SET status = 'approved' WHERE plan_hash = '{UNSIGNED}'"),
        ("ledgerbudget", "UPDATE ledgerbudget SET epsilon = 80"),
        ("ledgerhead", 'UPDATE ledgerhead SET "index" = 3'),
        ("ledgerhead", 'DELETE FROM ledgerentry WHERE "index" > 15'),
    ],
)
def test_tables_that_do_not_follow_from_the_entries_are_found(
    copy: Path, table: str, change: str
) -> None:
    assert verify(copy, NODE_HEX).ok
    tamper_file(copy, change)
    assert table in verify(copy, NODE_HEX).problem


# What the node itself, holding the key, can't do


def drop(kind: str, nth: int = 0) -> Tamper:
    return lambda entries: entries.pop(place(entries, kind, nth))


def change(kind: str, nth: int = 0, **changes: Any) -> Tamper:
    def apply(entries: list[Entry]) -> None:
        position = place(entries, kind, nth)
        entries[position] = edit(entries[position], **changes)

    return apply


def repeat(kind: str, nth: int = 0, **changes: Any) -> Tamper:
    def apply(entries: list[Entry]) -> None:
        position = place(entries, kind, nth)
        entries.insert(position + 1, edit(entries[position], **changes))

    return apply


def both(first: Tamper, second: Tamper) -> Tamper:
    return lambda entries: (first(entries), second(entries))


ONE_COUNT = [
    {"count": 1, "noise_multiplier": 6, "sampling_rate": 0.2},
    {"count": 4, "noise_multiplier": 4, "sampling_rate": 1},
]
YES = sign_approval(OWNER, PLAN, "alpha")
NO_NOISE = {"count": 1, "noise_multiplier": 0.5, "sampling_rate": 1}
SMALL: dict[str, Any] = {"population": "shoppers", "epsilon": 1.0, "delta": DELTA, "public": False}


@pytest.mark.parametrize(
    ("tamper", "kind", "problem"),
    [
        (drop("approval"), "reservation", "reserved while the plan is pending"),
        (drop("reservation"), "charge", "no open reservation"),
        (drop("submission"), "approval", "never submitted"),
        (drop("budget"), "submission", "no budget"),
        (drop("void"), "closure", "reservation of the plan is open"),
        (change("approval", signature="0" * 128), "approval", "doesn't fit the plan"),
        (change("approval", plan=SECOND), "approval", "doesn't fit the plan"),
        (change("approval", owner_key=NODE_HEX), "approval", "doesn't fit the plan"),
        (change("reservation", event=NO_NOISE), "reservation", "isn't in the approved plan"),
        (change("reservation", plan=UNSIGNED), "reservation", "plan is awaiting signature"),
        (repeat("reservation"), "reservation", "was reserved before"),
        (repeat("reservation", attempt=1), "reservation", "is open"),
        (
            both(change("submission", events=ONE_COUNT), repeat("reservation", step="more")),
            "reservation",
            "more releases",
        ),
        (repeat("charge"), "charge", "no open reservation"),
        (repeat("approval"), "approval", "can't become approved"),
        (repeat("submission"), "submission", "submitted before"),
        (change("charge", share="none"), "charge", "no share's hash"),
        (change("budget", **SMALL), "reservation", "over its budget"),
        (change("budget", epsilon=-1), "budget", "no such budget"),
        (change("budget", time="yesterday"), "budget", "can't be read"),
        (change("submission", events=[]), "submission", "no releases"),
        (change("approval", second_key=NODE_HEX), "approval", "half of a second person's yes"),
        (change("approval", second_key=OWNER_HEX, second=YES), "approval", "signed for two"),
        (change("approval", second_key=NODE_HEX, second=YES), "approval", "second person's"),
    ],
)
def test_the_node_cannot_sign_what_breaks_the_rules(
    entries: list[Entry], tamper: Tamper, kind: str, problem: str
) -> None:
    tamper(entries)
    chain = resign(entries)
    verdict = verify(chain, NODE_HEX)
    assert problem in verdict.text
    assert verdict.first_bad is not None
    assert chain[verdict.first_bad - 1].kind == kind


def test_the_entry_that_went_over_the_budget_is_named_not_the_one_it_showed_at(
    entries: list[Entry],
) -> None:
    position = place(entries, "budget")
    entries[position] = edit(entries[position], epsilon=1.5)
    verdict = verify(resign(entries), NODE_HEX)
    assert verdict.first_bad is not None
    spent_before = verify(resign(entries)[: verdict.first_bad - 1], NODE_HEX)
    spent_with = verify(resign(entries)[: verdict.first_bad], NODE_HEX)
    assert spent_before.ok
    assert not spent_with.ok


def test_an_approval_by_anyone_but_the_pinned_owner_is_found(entries: list[Entry]) -> None:
    impostor = Ed25519PrivateKey.generate()
    position = place(entries, "approval")
    entries[position] = edit(
        entries[position],
        owner_key=owner_key_hex(impostor),
        signature=sign_approval(impostor, PLAN, "alpha"),
    )
    verdict = verify(resign(entries), NODE_HEX, OWNER_HEX)
    assert (verdict.first_bad, "domain's owner" in verdict.problem) == (position + 1, True)


def test_more_plans_than_an_envelope_approves_are_found(entries: list[Entry]) -> None:
    around = Envelope(
        domain="alpha", signed="2026-01-01T00:00:00+00:00", expires="9999-01-01T00:00:00+00:00",
        data_set="d", scientists=("1" * 64,), roster="2" * 64, models=("3" * 64,), plans=2,
        epsilon=9.0, total_epsilon=9.0, delta=DELTA, releases=9, noise_multiplier=1.0, collusion=1,
        explanation="e" * 64,
    )  # fmt: skip
    summary = {
        "dataset": "d", "author": "1" * 64, "roster_hash": "2" * 64, "model": "3" * 64, "like": "",
        "delta": DELTA,
    }  # fmt: skip
    for envelope, ok in ((around, True), (around.model_copy(update={"plans": 1}), False)):
        signed = sign_envelope(OWNER, envelope)
        changed = [
            edit(entry, summary=summary) if entry.kind == "submission"
            else edit(entry, signature=signed) if entry.kind == "approval"
            else entry
            for entry in entries
        ]  # fmt: skip
        verdict = verify(resign(changed), NODE_HEX)
        assert verdict.ok == ok
    assert verdict.first_bad == place(entries, "approval", 1) + 1
    assert "its envelope approves 1 plans, and this is one more" in verdict.problem


@pytest.mark.parametrize(
    "body",
    [
        "",
        "[]",
        "{}",
        "null",
        '{"time":1}',
        '{"plan":{}}',
        '{"a":NaN}',
        '{"a":1,"a":2}',
        "[" * 100_000,
        "\ud800",
    ],
)
def test_a_body_of_any_shape_is_a_finding_not_a_crash(entries: list[Entry], body: str) -> None:
    for kind in ("ledger", "budget", "submission", "approval", "reservation", "charge", "void"):
        position = place(entries, kind)
        changed = [*entries[:position], dataclasses.replace(entries[position], body=body)]
        chain = changed if body == "\ud800" else resign(changed)
        verdict = verify(chain, NODE_HEX)
        assert (verdict.ok, verdict.first_bad) == (False, position + 1)


@pytest.mark.parametrize("number", ["1e999", "-1", "0", '"x"', "[]", "1e400", "{}"])
def test_a_number_of_any_kind_is_a_finding_not_a_crash(entries: list[Entry], number: str) -> None:
    position = place(entries, "submission")
    body = entries[position].body.replace('"count":4', f'"count":{number}')
    entries[position] = dataclasses.replace(entries[position], body=body)
    assert verify(resign(entries), NODE_HEX).first_bad == position + 1


# As a command


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "policies.verify", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY, check=False)


def test_the_command_prints_the_verdict_and_says_it_in_its_exit_code(
    original: tuple[Path, Budget, list[Entry]], copy: Path, tmp_path: Path
) -> None:
    good = run(str(original[0]), "--key", NODE_HEX)
    assert (good.returncode, good.stdout.strip()) == (0, verify(original[0], NODE_HEX).text)
    tamper_file(copy, "UPDATE ledgerentry SET kind = 'void' WHERE kind = 'charge'")
    bad = run(str(copy))
    assert bad.returncode == 1
    assert "BAD: entry" in bad.stdout
    missing = run(str(tmp_path / "none.sqlite"))
    assert missing.returncode == 2
    assert "no ledger at" in missing.stderr


def test_a_file_that_is_no_ledger_is_a_finding(tmp_path: Path) -> None:
    junk = tmp_path / "junk.sqlite"
    junk.write_bytes(b"junk" * 1000)
    empty = tmp_path / "empty.sqlite"
    empty.touch()
    assert "not a ledger" in verify(junk).problem
    assert "not a ledger" in verify(empty).problem
    with pytest.raises(FileNotFoundError, match="no ledger"):
        verify(tmp_path / "none.sqlite")


def test_reading_changes_nothing_and_works_beside_a_writer(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    ledger = Ledger(f"sqlite:///{path}", "alpha", NODE)
    fill(ledger)
    head = ledger.head()
    with ledger._database.write_engine.begin():  # a writer in the middle of its transaction
        assert verify(path, NODE_HEX).ok
    assert ledger.head() == head
    ledger.dispose()
