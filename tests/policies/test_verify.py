"""The auditor's verifier: finds every edit it can, names it, and recomputes epsilon by itself."""

import ast
import dataclasses
import random
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from dp_accounting.dp_event import GaussianDpEvent, PoissonSampledDpEvent
from dp_accounting.rdp import RdpAccountant

import policies.verify
from policies.accounting import ORDERS, Event, RenyiFilter
from policies.approvals import owner_key_hex, sign_approval
from policies.ledger import Budget, Entry, Ledger, LedgerError
from policies.verify import verify
from policies.verify.spending import OLD_ORDERS
from tests.policies.edited_entries import (
    COUNT,
    DELTA,
    NODE,
    NODE_HEX,
    OWNER,
    OWNER_HEX,
    REPOSITORY,
    TRAIN,
    UNSIGNED,
    edit,
    fill,
    place,
    resign,
    tamper_file,
)


@pytest.fixture
def copy(original: tuple[Path, Budget, list[Entry]], tmp_path: Path) -> Path:
    path = tmp_path / "copy.sqlite"
    with sqlite3.connect(original[0]) as source, sqlite3.connect(path) as target:
        source.backup(target)
    source.close()
    target.close()
    return path


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
