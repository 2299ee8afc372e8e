"""A scientist's and an auditor's pages at real nodes, in this process and in Chromium.

Screenshots of every page, light and dark, go to the folder named by COTERIE_SCREENSHOTS.
"""

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
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
from coterie.partners import card_of, invite
from coterie.processes import free_ports, start, stop
from dashboard.app import PAGES
from dashboard.datasets import mock_of
from dashboard.ledgers import look as look_at_ledger
from dashboard.network import look
from dashboard.quote import federation_of
from dashboard.session import Role, Session, everywhere
from dashboard.texts import catalogue
from network.client import NodeRefused
from network.federation import read_accounts
from network.hub import admit_member, announce, new_card
from policies.accounting import ADJACENCY
from policies.verify import verify_proof
from tests.dashboard.browser import Line, Visitor, chromium, screenshots
from tests.network_of_three import NAMES, Network, counting_plan

pytestmark = [pytest.mark.nodes, pytest.mark.timeout(600)]

WATCHER = "watch@dashboard.example"


@dataclass
class Served:
    """The hub's dashboard on the network of three, and south's line, which can be cut."""

    address: str
    south: Line
    auditors: Path


@pytest.fixture(scope="module")
def auditors(network: Network, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One auditor's accounts at every domain."""
    file = tmp_path_factory.mktemp("watcher") / "accounts.json"
    for name in NAMES:
        invite(network.home, name, WATCHER, "auditor", file)
    return file


@pytest.fixture(scope="module")
def ran(network: Network) -> str:
    """A plan whose run lies on this machine."""
    plan = counting_plan(network.federation.data("interactions"), "shown on pages", 0.3, releases=2)
    plan_hash = network.submit_and_approve(plan)
    network.federation.train(plan, network.home.runs / plan_hash[:16])
    return plan_hash


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
    yield Served(place.address, south, auditors)
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


def session(network: Network, role: Role, auditors: Path, runs: Path | None = None) -> Session:
    nodes = network.federation.nodes
    if role == "auditor":
        nodes = ct.Auditor.connect(auditors).nodes
    now = datetime.now(UTC)
    return Session(
        nodes, {}, role, WATCHER, now, now + timedelta(hours=1), runs=runs or network.home.runs
    )


def drawn(name: str, who: Session) -> AppTest:
    """A page of this session, run in this process."""

    def script(page: str) -> None:
        from importlib import import_module

        import streamlit as st

        import_module(f"dashboard.{page}").draw(st.session_state["session"])

    page = AppTest.from_function(script, kwargs={"page": name}, default_timeout=60)
    page.session_state["session"] = who
    return page.run()


def said(page: AppTest) -> str:
    elements = [*page.markdown, *page.caption, *page.info, *page.warning, *page.error]
    return "\n".join(str(each.value) for each in elements)


# --- In this process ---


def test_every_page_draws_without_an_error_and_with_its_adjacency(
    network: Network, auditors: Path, ran: str
) -> None:
    roles: tuple[Role, ...] = ("scientist", "auditor")
    for role in roles:
        who = session(network, role, auditors)
        for name in PAGES[role]:
            page = drawn(name, who)
            assert not page.exception, name
            assert not page.error, (name, [each.value for each in page.error])
            assert page.title[0].value == catalogue("en")[f"pages.{name}"]
            if name in ("datasets", "quote", "plans", "run", "comparison", "ledgers"):
                assert ADJACENCY in said(page), name


def test_partners_answer_to_a_choice_and_a_new_choice_asks_anew(
    network: Network, auditors: Path
) -> None:
    page = drawn("quote", session(network, "scientist", auditors))
    assert "weren't asked" in said(page)
    page.button[0].click().run()
    assert not page.error
    (answers,) = [t.value for t in page.dataframe if "answer" in t.value]
    assert list(answers["domain"]) == list(NAMES)
    assert set(answers["answer"]) <= {"within its rules", "leaves it to the owner", "refuses"}
    page.select_slider(key="epsilon").set_value(2.0).run()
    assert "weren't asked" in said(page)


def test_a_withdrawal_needs_a_reason_and_a_tick(network: Network, auditors: Path) -> None:
    plan = counting_plan(network.federation.data("interactions"), "to be withdrawn", 0.1)
    network.federation.submit(plan)
    plan_hash = network.federation.bind(plan).hash
    page = drawn("plans", session(network, "scientist", auditors))
    page.selectbox(key="plan").select(plan_hash).run()
    page.button[-1].click().run()
    assert "Give a reason" in said(page)
    page.text_input[0].set_value("a mistake")
    page.checkbox[0].check()
    page.button[-1].click().run()
    standing = network.federation.status(plan_hash)
    assert {each["status"] for each in standing.values()} == {"closed"}


def test_another_scientist_on_the_same_machine_is_shown_no_run_of_hers(
    network: Network, auditors: Path, ran: str, tmp_path: Path
) -> None:
    file = tmp_path / "bob.json"
    invite(network.home, "north", "bob@dashboard.example", "scientist", file)
    bob = ct.connect(read_accounts(file), tmp_path / "bob.pem")
    now = datetime.now(UTC)
    his = Session(
        bob.nodes, {}, "scientist", "bob", now, now + timedelta(hours=1), runs=network.home.runs
    )
    for name in ("plans", "run", "comparison"):
        page = drawn(name, his)
        assert not page.exception
        assert ran[:12] not in said(page)
        assert not page.dataframe


def test_a_verification_gives_verdicts_alerts_and_a_report(
    network: Network, auditors: Path, ran: str
) -> None:
    who = session(network, "auditor", auditors)
    page = drawn("ledgers", who)
    assert set(page.dataframe[0].value["your verdict"]) == {"Not verified in this session."}
    page.button[0].click().run()
    assert not page.error
    assert set(page.dataframe[0].value["your verdict"]) == {"complete"}
    report = drawn("report", who)
    assert "Not verified" in said(report)
    report.button[0].click().run()
    assert not report.exception
    assert [code.value.splitlines()[0].partition(":")[0] for code in report.code] == [
        f"Ledger of '{name}'" for name in NAMES
    ]


def test_the_apps_own_functions_get_nothing_for_another_role(
    network: Network, auditors: Path
) -> None:
    scientist = session(network, "scientist", auditors)
    auditor = session(network, "auditor", auditors)
    answers, refused = everywhere(scientist, look_at_ledger)
    assert (answers, set(refused)) == ({}, set(NAMES))
    with pytest.raises(NodeRefused):
        mock_of(auditor.nodes["north"], "interactions")
    plan = counting_plan(network.federation.data("interactions"), "an auditor's", 0.1)
    with pytest.raises(NodeRefused):
        federation_of(auditor).quote(plan)
    for name in ("requests", "request", "budgets", "policy"):
        assert name not in PAGES["scientist"]
        assert name not in PAGES["auditor"]
    assert {each["rounds"] for each in look(scientist).values()} == {None}


# --- In Chromium ---


def signed_in(browser: Any, served: Served, file: Path, pictures: Path, **context: Any) -> Visitor:
    visitor = Visitor.open(browser, served.address, pictures, **context)
    accounts = read_accounts(file)
    visitor.page.get_by_label("Email").fill(accounts["north"].email)
    for name, account in accounts.items():
        visitor.page.get_by_label(f"Password at {name}").fill(account.password)
    visitor.page.get_by_role("button", name="Sign in").click()
    visitor.page.get_by_role("button", name="Sign out").wait_for()
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
    page.get_by_text("Last verified (UTC): 20").wait_for()
    page.get_by_test_id("stDataFrame").first.click(position={"x": 18, "y": 52})
    page.get_by_role("heading", name="Entries", exact=True).wait_for()
    visitor.settle()
    page.get_by_test_id("stDataFrame").first.click(position={"x": 18, "y": 52})
    page.get_by_text("is in the ledger of").wait_for()
    with page.expect_download() as download:
        page.get_by_role("button", name="Download the proof").click()
    download.value.save_as(tmp_path / "proof.json")
    assert verify_proof(tmp_path / "proof.json").ok
    visitor.go("Report")
    for button, suffix in (("Report as HTML", "html"), ("Report as JSON", "json")):
        with page.expect_download() as download:
            page.get_by_role("button", name=button).click()
        download.value.save_as(tmp_path / f"report.{suffix}")
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


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_page_is_photographed(
    browser: Any, served: Served, network: Network, ran: str, pictures: Path, scheme: str
) -> None:
    for role, file in (("scientist", network.home.accounts), ("auditor", served.auditors)):
        visitor = signed_in(browser, served, file, pictures, color_scheme=scheme)
        for name in PAGES[role]:  # type: ignore[index]
            visitor.go(catalogue("en")[f"pages.{name}"])
            visitor.page.wait_for_function(
                "() => !document.querySelector('[data-testid=stSkeleton], [data-stale=true]')"
            )
            visitor.photograph(f"{role}-{name}-{scheme}")
            assert (pictures / f"{role}-{name}-{scheme}.png").stat().st_size > 10_000
        visitor.page.context.close()


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
