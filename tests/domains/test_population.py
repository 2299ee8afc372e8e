"""A budget belongs to the population: no re-upload, copy or append resets it."""

from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from coterie.home import Home
from coterie.partners import add_data, create_domain
from domains.dataset import load_datasets
from domains.desk import Desk
from domains.folder import public_hex
from policies.accounting import Event
from policies.approvals import load_owner_key, owner_key_hex, sign_approval
from policies.ledger import Ledger


def desk(home: Home, ledger: Ledger) -> Desk:
    folder = home.domain("north")
    key = public_hex(folder.node_key())
    return Desk(folder.settings(), key, ledger, load_datasets(folder), folder.store / "plans")


def test_a_copy_under_another_name_finds_the_budget_as_it_was(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    create_domain(home, "north", "127.0.0.1", 8199)
    folder = home.domain("north")
    (tmp_path / "items.txt").write_text("a\nb\n")
    (tmp_path / "rows.csv").write_text("user,item\nu,a\nv,b\n")

    def add(name: str) -> None:
        add_data(
            folder,
            file=tmp_path / "rows.csv",
            catalogue=tmp_path / "items.txt",
            dataset=name,
            population="viewers",
            users=100,
            interactions_per_user=4,
            holdout=None,
            epsilon=5.0,
            public=False,
        )

    add("january")
    ledger = Ledger(folder.ledger_url, "north", folder.node_key())
    (before,) = desk(home, ledger).budgets()
    assert before["spent"] == 0
    spend(ledger, load_owner_key(home.owner_key("north"), None))
    (spent,) = desk(home, ledger).budgets()
    assert spent["spent"] > 0
    add("january-copy")
    (folder.datasets / "january" / "data" / "interactions-2.csv").write_text("user,item\nw,a\n")
    budgets = desk(home, ledger).budgets()
    assert [b["population"] for b in budgets] == ["viewers"]
    assert budgets[0]["spent"] == spent["spent"]
    assert budgets[0]["remaining"] <= spent["remaining"]


def spend(ledger: Ledger, owner: Ed25519PrivateKey) -> None:
    plan, event = "ab" * 32, Event(2.0, 1.0, 1)
    ledger.submit(plan, "count", "ada", "viewers", [event], {})
    signature = sign_approval(owner, plan, "north")
    ledger.approve(plan, "owner", owner_key_hex(owner), signature, "0" * 64)
    ledger.reserve(plan, "count", 0, 0, event)
    ledger.charge(plan, "count", 0, 0, "c" * 64)
