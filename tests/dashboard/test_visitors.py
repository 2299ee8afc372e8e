"""A scientist's and an auditor's pages in Chromium, at real nodes.

Screenshots of every page, light and dark, go to the folder named by COTERIE_SCREENSHOTS.
"""

import json
import sqlite3
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from streamlit.testing.v1 import AppTest

import coterie as ct
from coterie.home import Home
from coterie.hub import start_hub, stop_hub
from coterie.pages import Place, hub_dashboard_command
from coterie.partners import card_of
from coterie.processes import free_ports, start, stop
from dashboard.app import PAGES
from dashboard.texts import catalogue
from network.federation import read_accounts
from network.hub import admit_member, announce, new_card
from policies.verify import verify_proof
from tests.dashboard.browser import Line, Visitor, chromium, screenshots
from tests.dashboard.signed_in import PAGE
from tests.network_of_three import NAMES, Network, counting_plan

pytestmark = [pytest.mark.nodes, pytest.mark.timeout(600)]


@dataclass
class Served:
    """The hub's dashboard on the network of three, and south's line, which can be cut."""

    address: str
    hub: str
    south: Line
    auditors: Path


@pytest.fixture(scope="module")
def served(
    network: Network, auditors: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("hub")
    hub = start_hub(Home(folder), "127.0.0.1", free_ports(1)[0])
    cards = {name: card_of(network.home.domain(name)) for name in NAMES}
    south = Line(cards["south"].url)
    cards["south"] = new_card(
        "south",
        f"http://127.0.0.1:{south.port}",
        cards["south"].owner_key,
        network.home.domain("south").node_key(),
    )
    for name, card in cards.items():
        admit_member(Home(folder).hub, name, card.node_key)
        announce(hub, card)
    place = Place(port=free_ports(1)[0])
    files = folder / "dashboard.pid", folder / "dashboard.log"
    command = hub_dashboard_command(network.home, hub, None, place)
    health = f"{place.address}/_stcore/health"
    start("dashboard", command, *files, "127.0.0.1", place.port, health)
    yield Served(place.address, hub, south, auditors)
    south.cut()
    stop("dashboard", files[0])
    stop_hub(Home(folder))


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return screenshots(tmp_path_factory.mktemp("screenshots"))


def signed_in(browser: Any, served: Served, file: Path, pictures: Path, **context: Any) -> Visitor:
    visitor = Visitor.open(browser, served.address, pictures, **context)
    accounts, said = read_accounts(file), catalogue(context.get("locale", "en")[:2])
    visitor.page.get_by_label(said["signin.email"]).fill(accounts["north"].email)
    for name, account in accounts.items():
        label = said["signin.password_of"].format(name=name)
        visitor.page.get_by_label(label).fill(account.password)
    visitor.page.get_by_role("button", name=said["signin.button"]).click()
    visitor.page.get_by_role("button", name=said["shell.sign_out"]).wait_for()
    visitor.settle()
    return visitor


def metered_plan(network: Network) -> ct.Plan:
    """Three releases with a metric."""
    plan = counting_plan(network.federation.data("interactions"), "watched while it runs", 0.3)
    (step,) = plan.steps
    assert isinstance(step, ct.Sum)

    def counted(total: Any) -> dict[str, float]:
        return {"mean count": float(total["counts"].mean())}

    measured = ct.Sum(
        step.name, step.contribution, step.clip_norm, 3, update=step.update, metrics=counted
    )
    return ct.Plan("watched", plan.purpose, plan.data, [measured], plan.state, epsilon=0.3)


def test_a_scientists_way_from_sign_in_to_a_finished_run_that_updates_live(
    browser: Any, served: Served, network: Network, pictures: Path, tmp_path: Path
) -> None:
    visitor = signed_in(browser, served, network.home.accounts, pictures)
    page = visitor.page
    titles = [catalogue("en")[f"pages.{name}"] for name in PAGES["scientist"]]
    assert visitor.menu() == titles
    visitor.go("Data sets")
    page.get_by_text("no signal").first.wait_for()
    visitor.go("Quote")
    page.get_by_role("button", name="Ask the partners").click()
    page.get_by_text("The plan costs").wait_for()

    plan = metered_plan(network)
    plan_hash = network.submit_and_approve(plan)
    visitor.go("Plans")
    page.get_by_text(plan_hash).first.wait_for()
    visitor.go("Run")
    page.get_by_text("not started").wait_for()
    seen, going = threading.Event(), threading.Event()

    def wait_for_the_page(release: ct.Progress) -> None:
        going.set()
        if release.index == 1:
            assert seen.wait(240)

    trained: list[ct.Run] = []
    folder = network.home.runs / plan_hash[:16]
    run = threading.Thread(
        target=lambda: trained.append(network.federation.train(plan, folder, wait_for_the_page))
    )
    run.start()
    try:
        assert going.wait(240)
        page.get_by_text("1 / 3").wait_for()
        page.get_by_text("running", exact=True).first.wait_for()
        page.get_by_text("mean count").first.wait_for()
    finally:
        seen.set()
        run.join(300)
    page.get_by_text("3 / 3").wait_for()
    page.get_by_text("finished", exact=True).first.wait_for()
    visitor.photograph("run-finished-light", 1400)

    with page.expect_download() as download:
        page.get_by_role("button", name="Download the model").click()
    kept = tmp_path / "model.safetensors"
    download.value.save_as(kept)
    assert torch.equal(safetensors.torch.load_file(kept)["sum"], trained[0].state["sum"])
    visitor.go("Comparison")
    page.get_by_text("mean count by release").first.wait_for()
    assert visitor.dialogs == []


def test_an_auditors_way_from_sign_in_to_an_entrys_proof_and_the_report(
    browser: Any, served: Served, ran: str, pictures: Path, tmp_path: Path
) -> None:
    visitor = signed_in(browser, served, served.auditors, pictures)
    page = visitor.page
    assert visitor.menu() == [catalogue("en")[f"pages.{name}"] for name in PAGES["auditor"]]
    visitor.go("Ledgers")
    page.get_by_role("button", name="Verify all ledgers now").click()
    page.get_by_text("Last verified: 20").wait_for()
    visitor.choose_row(1)
    page.get_by_test_id("stMain").get_by_role("link", name="releases").click()
    page.get_by_role("heading", name="Entries", exact=True).wait_for()
    visitor.settle()
    visitor.choose_row(1)
    page.get_by_text("is in the ledger of").wait_for()
    with page.expect_download() as download:
        page.get_by_role("button", name="Download the proof").click()
    download.value.save_as(tmp_path / "proof.json")
    assert verify_proof(tmp_path / "proof.json").ok
    visitor.go("Report")
    for form in ("pdf", "html", "json"):
        with page.expect_download() as download:
            page.get_by_role("button", name=f"Report as {form.upper()}").click()
        download.value.save_as(tmp_path / f"report.{form}")
    assert (tmp_path / "report.pdf").read_bytes().startswith(b"%PDF-")
    assert "<h1>Audit of 3 ledgers</h1>" in (tmp_path / "report.html").read_text()
    found = json.loads((tmp_path / "report.json").read_text())
    assert all(domain["verdict"]["complete"] for domain in found["domains"])


def test_an_address_of_another_role_shows_nothing_of_it(
    browser: Any, served: Served, network: Network, pictures: Path
) -> None:
    for path in ("ledgers", "requests"):
        other = Visitor.open(browser, f"{served.address}/{path}", pictures)
        accounts = read_accounts(network.home.accounts)
        other.page.get_by_label("Email").fill(accounts["north"].email)
        other.page.get_by_label("Password at north").fill(accounts["north"].password)
        other.page.get_by_role("button", name="Sign in").click()
        other.page.get_by_role("button", name="Sign out").wait_for()
        other.settle()
        assert "Ledgers" not in other.menu()
        for never in ("Verify all ledgers now", "Which entries", "waiting for your decision"):
            assert never not in other.text()
        other.page.context.close()


@pytest.mark.parametrize(("scheme", "locale"), [("light", "en-GB"), ("dark", "zh-CN")])
def test_every_page_is_photographed_wide_and_on_a_phone(
    browser: Any, served: Served, network: Network, ran: str, pictures: Path, scheme: str,
    locale: str,
) -> None:  # fmt: skip
    for role, file in (("scientist", network.home.accounts), ("auditor", served.auditors)):
        visitor = signed_in(browser, served, file, pictures, color_scheme=scheme, locale=locale)
        for name in PAGES[role]:  # type: ignore[index]
            visitor.go(catalogue(locale[:2])[f"pages.{name}"])
            visitor.page.wait_for_function(
                "() => !document.querySelector('[data-testid=stSkeleton], [data-stale=true]')"
            )
            visitor.described()
            visitor.photograph(f"{role}-{name}-{scheme}", 1400)
            assert (pictures / f"{role}-{name}-{scheme}.png").stat().st_size > 10_000
            levels = [int(tag[1]) for tag in visitor.headings()]
            assert levels[0] == 1, (name, levels)
            assert all(deeper - level <= 1 for level, deeper in pairwise(levels)), (name, levels)
            visitor.photograph(f"{role}-{name}-{scheme}-phone", 390)
            assert visitor.sideways() <= 0, name
        visitor.page.context.close()


def test_a_tampered_ledger_is_shown_with_its_first_bad_entry(
    browser: Any, served: Served, network: Network, ran: str, pictures: Path
) -> None:
    file = network.home.domain("east").ledger_file
    with tampered(file) as index:
        visitor = signed_in(browser, served, served.auditors, pictures)
        visitor.go("Ledgers")
        visitor.page.get_by_role("button", name="Verify all ledgers now").click()
        look = visitor.page.get_by_role("button", name=f"Look at entry {index}")
        look.wait_for()
        visitor.settle()
        assert "BAD" in visitor.text()
        visitor.photograph("ledgers-tampered")
        look.click()
        visitor.page.get_by_role("heading", name=f"Entry {index} of east").wait_for()
        visitor.settle()
        visitor.photograph("entry-tampered")
        assert visitor.page.get_by_test_id("stException").count() == 0
        visitor.page.context.close()


@contextmanager
def tampered(file: Path) -> Iterator[int]:
    """A ledger in which an approval is another's; gives its number, and undoes it."""
    query = "SELECT \"index\", body FROM ledgerentry WHERE kind = 'approval' LIMIT 1"
    with closing(sqlite3.connect(file, timeout=30)) as database:
        index, body = database.execute(query).fetchone()
        rewrite(database, index, body.replace("owner", "0wner", 1))
        try:
            yield index
        finally:
            rewrite(database, index, body)


def rewrite(database: sqlite3.Connection, index: int, body: str) -> None:
    """Change an entry behind the back of the database's guards, as who has the file can."""
    guards = "SELECT name, sql FROM sqlite_master WHERE type = 'trigger' AND tbl_name = ?"
    triggers = database.execute(guards, ("ledgerentry",)).fetchall()
    with database:
        for name, _ in triggers:
            database.execute(f'DROP TRIGGER "{name}"')
        database.execute('UPDATE ledgerentry SET body = ? WHERE "index" = ?', (body, index))
        for _, sql in triggers:
            database.execute(sql)


def test_a_hub_that_names_another_key_is_shown_and_gets_no_password(
    served: Served, network: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = {name: network.federation.nodes[name].node_key for name in NAMES} | {"south": "0" * 64}
    file = tmp_path / "keys.json"
    file.write_text(json.dumps(keys))
    command = hub_dashboard_command(network.home, served.hub, None, Place(), file)
    monkeypatch.setattr(sys, "argv", [str(PAGE), *command[command.index("--") + 1 :]])
    page = AppTest.from_file(str(PAGE), default_timeout=300).run()
    assert "another node key" in page.error[0].value
    labels = [each.label for each in page.text_input]
    assert labels == ["Email", "Password at east", "Password at north"]
    accounts = read_accounts(served.auditors)
    for field, value in zip(
        page.text_input, (accounts["east"].email, *(accounts[n].password for n in NAMES[:2])),
        strict=True,
    ):  # fmt: skip
        field.set_value(value)
    page.button[0].click().run()
    assert set(page.session_state["session"].nodes) == {"east", "north"}
    assert "another node key" in page.session_state["session"].absent["south"]


def test_a_node_that_goes_down_is_shown_as_down_and_the_pages_go_on(
    browser: Any, served: Served, network: Network, pictures: Path
) -> None:
    visitor = signed_in(browser, served, served.auditors, pictures)
    visitor.go("Network")
    visitor.page.get_by_text("3 / 3").wait_for()
    served.south.cut()
    visitor.page.get_by_text("2 / 3").wait_for()
    visitor.photograph("network-down")
    visitor.go("Ledgers")
    visitor.page.get_by_text("does not answer").first.wait_for()
    visitor.page.get_by_text("Who co-signed whom").wait_for()
    visitor.go("Entries")
    assert "Traceback" not in visitor.text()
    scientist = Visitor.open(browser, served.address, pictures)
    scientist.page.get_by_label("Email").wait_for()
    scientist.page.context.close()
