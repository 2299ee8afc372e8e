"""The owner's way through her dashboard in Chromium, on real nodes.

Screenshots of every page, light and dark, go to the folder named by COTERIE_SCREENSHOTS.
"""

import json
import re
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from coterie.partners import open_owner
from dashboard.texts import catalogue
from network.federation import Federation
from policies.approvals import sign_submission
from policies.plan import Plan
from policies.verify import verify
from tests.dashboard.browser import (
    FAINT,
    UNNAMED,
    Line,
    Visitor,
    chromium,
    screenshots,
    served,
)
from tests.dashboard.signed_in import account_login, owner_login
from tests.network_of_three import Network, counting_plan

pytestmark = [pytest.mark.nodes, pytest.mark.timeout(600)]

LONG_NAME = "a plan with a very long name " + "x" * 34
HOSTILE = (
    "<script>document.title='owned'</script><img src=x onerror=alert(1)> "
    "[free](javascript:alert(2)) \u0645\u0631\u062d\u0628\u0627 $e=mc^2$ :red[x]"
)
SOURCE = "".join(f"{i % 10}\n" for i in range(9_950)) + "</code><script>alert(3)</script>"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the dashboard of north logs."""
    return tmp_path_factory.mktemp("north")


@pytest.fixture(scope="module")
def dashboard(browser: Any, network: Network, folder: Path) -> Iterator[tuple[str, Line]]:
    with served(network.home, "north", folder, "coterie/north") as found:
        yield found


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return screenshots(tmp_path_factory.mktemp("screenshots"))


@pytest.fixture(scope="module")
def owner(browser: Any, dashboard: tuple[str, Line], network: Network, pictures: Path) -> Visitor:
    """North's owner, signed in."""
    visitor = Visitor.open(browser, dashboard[0], pictures)
    visitor.page.get_by_label("Email").wait_for()
    visitor.photograph("sign-in-light")
    visitor.sign_in(*owner_login(network.home, "north"))
    return visitor


def submitted(network: Network, purpose: str, epsilon: float = 0.2) -> str:
    once = f"{purpose} ({secrets.token_hex(3)})"
    plan = counting_plan(network.federation.data("interactions"), once, epsilon)
    network.federation.submit(plan)
    return network.federation.bind(plan).hash


def submit_as_it_is(federation: Federation, plan: Plan) -> str:
    """Put a plan that no program of ours would write before the owners."""
    for node in federation.nodes.values():
        signature = sign_submission(federation._author, plan.hash, node.verify_key)
        answer = json.loads(node.call("submit", plan=plan.to_json(), signature=signature))
        assert answer["status"] == "pending", answer["refusals"]
    return plan.hash


def test_approved_on_the_page_is_the_same_as_approved_by_the_command(
    owner: Visitor, network: Network
) -> None:
    plan_hash = submitted(network, "Which items are popular, to order the shelf by")
    by_command = open_owner(network.home, "east")
    by_command.approve(plan_hash, "as agreed")
    network.federation.status(plan_hash)

    owner.open_request(plan_hash)
    page = owner.page
    page.get_by_text("owner@east.example").first.wait_for(state="attached")
    page.get_by_role("button", name="Approve", exact=True).click()
    page.get_by_label("Why? It goes into your signature").fill("as agreed")
    page.keyboard.press("Control+Enter")
    page.get_by_text("You approve counting").wait_for()
    owner.choose_file(network.home.owner_key("north"))
    owner.photograph("approval-light")
    page.get_by_role("button", name="Approve and sign").click()
    page.get_by_text(f"Plan {plan_hash[:12]}: approved").wait_for()
    owner.settle()
    owner.photograph("approved-light")

    on_page, told = open_owner(network.home, "north").show(plan_hash), by_command.show(plan_hash)
    for same in ("status", "reason", "plan_hash", "events"):
        assert on_page[same] == told[same]
    signed = [json.loads(json.loads(each["signature"])["said"]) for each in (on_page, told)]
    for same in ("kind", "plan", "reason"):
        assert signed[0][same] == signed[1][same]
    assert verify(network.home.domain("north").ledger_file).ok


def test_nothing_secret_is_in_the_address_the_browser_or_the_log(
    owner: Visitor, network: Network, folder: Path
) -> None:
    """After the approval above, which took the password and the key."""
    kept = owner.page.evaluate(
        """async () => JSON.stringify([localStorage, sessionStorage, document.cookie, location.href,
            await indexedDB.databases(), await caches.keys()])"""
    )
    cookies = json.dumps(owner.page.context.cookies())
    log = (folder / "dashboard.log").read_text()
    _, password = owner_login(network.home, "north")
    key = network.home.owner_key("north").read_text().splitlines()[1]
    for where in (kept, cookies, log):
        assert password not in where
        assert key not in where
        assert "PRIVATE KEY" not in where
    assert json.loads(kept)[4:] == [[], []]
    assert {c["name"] for c in json.loads(cookies)} <= {"_streamlit_xsrf"}


def test_a_request_is_approved_without_a_mouse(
    browser: Any, dashboard: tuple[str, Line], network: Network, pictures: Path
) -> None:
    """From signing in to the signature by Tab, Enter, Space, typing and pasting, by the names a
    screen reader says."""
    plan_hash = submitted(network, "by keyboard")
    visitor = Visitor.open(browser, dashboard[0], pictures)
    page = visitor.page
    page.get_by_label("Email").wait_for()
    visitor.settle()
    email, password = owner_login(network.home, "north")
    visitor.tab_to("Email")
    page.keyboard.type(email)
    visitor.tab_to("Password")
    page.keyboard.type(password)
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Sign out").wait_for()
    visitor.settle()
    visitor.tab_to(plan_hash[:8])
    page.keyboard.press("Enter")
    page.get_by_text(plan_hash).first.wait_for()
    visitor.settle()
    assert page.evaluate(UNNAMED) == []
    visitor.tab_to("Approve", "button")
    page.keyboard.press("Space")
    page.get_by_label("Why? It goes into your signature").wait_for()
    visitor.settle()
    visitor.tab_to("Why? It goes into your signature")
    page.keyboard.type("without a mouse")
    page.keyboard.press("Control+Enter")
    page.get_by_text("You approve counting").wait_for()
    visitor.settle()
    visitor.tab_to("Signature made elsewhere")
    signature = open_owner(network.home, "north").sign(plan_hash, "without a mouse")
    page.keyboard.insert_text(signature)
    visitor.tab_to("Approve and sign")
    page.keyboard.press("Enter")
    page.get_by_text(f"Plan {plan_hash[:12]}: approved").wait_for()
    shown = open_owner(network.home, "north").show(plan_hash)
    assert (shown["status"], shown["reason"]) == ("approved", "without a mouse")
    page.context.close()


def test_several_are_denied_together_with_one_reason(owner: Visitor, network: Network) -> None:
    hashes = [submitted(network, f"one of {n}") for n in range(2)]
    owner.go("Requests")
    page = owner.page
    owner.choose_row(0)
    page.get_by_text("You deny").wait_for()
    owner.photograph("bulk-denial-light")
    page.get_by_label("Why not? The scientist reads this").fill("not this month")
    page.get_by_role("button", name=re.compile(r"Deny \d+ requests")).click()
    page.get_by_text("Denied:").wait_for()
    for plan_hash in hashes:
        shown = open_owner(network.home, "north").show(plan_hash)
        assert (shown["status"], shown["reason"]) == ("denied", "not this month")


def test_denied_on_the_page_is_the_same_as_denied_by_the_command(
    owner: Visitor, network: Network
) -> None:
    plan_hash = submitted(network, "too curious")
    assert open_owner(network.home, "east").deny(plan_hash, "too curious") == "denied"
    owner.open_request(plan_hash)
    page = owner.page
    page.get_by_role("button", name="Deny", exact=True).click()
    page.get_by_text("You deny counting").wait_for()
    page.get_by_test_id("stFormSubmitButton").get_by_role("button", name="Deny").click()
    page.get_by_text("Give a reason").wait_for()
    page.get_by_label("Why not? The scientist reads this").fill("too curious")
    page.get_by_test_id("stFormSubmitButton").get_by_role("button", name="Deny").click()
    page.get_by_text(f"Plan {plan_hash[:12]}: denied").wait_for()
    network.federation.status(plan_hash)
    owner.open_decided(plan_hash)
    page.get_by_text("Not approved by: east").wait_for()
    shown = [open_owner(network.home, name).show(plan_hash) for name in ("north", "east")]
    assert [(each["status"], each["reason"]) for each in shown] == [("denied", "too curious")] * 2


def test_of_two_tabs_the_second_is_told_that_the_first_decided(
    owner: Visitor, network: Network
) -> None:
    plan_hash = submitted(network, "decided twice")
    owner.open_request(plan_hash)
    page = owner.page
    page.get_by_role("button", name="Deny", exact=True).click()
    page.get_by_text("You deny counting").wait_for()
    page.get_by_label("Why not? The scientist reads this").fill("the second tab")
    assert open_owner(network.home, "north").approve(plan_hash, "the first tab") == "approved"
    page.get_by_test_id("stFormSubmitButton").get_by_role("button", name="Deny").click()
    page.get_by_text("This plan is approved").first.wait_for()
    assert open_owner(network.home, "north").show(plan_hash)["status"] == "approved"


def test_hostile_words_names_and_sources_stay_harmless_and_readable(
    owner: Visitor, network: Network
) -> None:
    plan = network.federation.bind(
        counting_plan(network.federation.data("interactions"), HOSTILE + secrets.token_hex(3), 0.2)
    )
    step = plan.steps[0].model_copy(update={"source": SOURCE})
    hostile = plan.model_copy(update={"name": LONG_NAME, "steps": (step,)})
    plan_hash = submit_as_it_is(network.federation, Plan.from_json(hostile.to_json()))
    owner.open_request(plan_hash)
    page = owner.page
    assert "<script>document.title" in owner.text()
    assert "[free](javascript:alert(2)) \u0645\u0631\u062d\u0628\u0627" in owner.text()
    assert LONG_NAME in owner.text()
    page.get_by_role("tab", name="Source").click()
    page.get_by_text("alert(3)").first.wait_for(state="attached")
    page.get_by_role("tab", name="What is computed").click()
    page.locator("svg .node").first.wait_for()
    owner.photograph("hostile-light")
    assert page.title() == "Coterie: north"
    assert page.locator("main img, a[href^=javascript]").count() == 0
    assert owner.dialogs == []
    sideways = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert page.evaluate(sideways) <= 0
    page.get_by_role("tab", name="Try it").click()
    page.get_by_role("button", name="Run on made-up users").click()
    page.get_by_text("would be clipped at 4").wait_for()


def test_every_page_in_light_dark_chinese_and_on_a_phone(
    owner: Visitor, browser: Any, dashboard: tuple[str, Line], network: Network, pictures: Path
) -> None:
    waiting = submitted(network, "Which items are popular this month")
    dark = Visitor.open(browser, dashboard[0], pictures, color_scheme="dark")
    dark.page.get_by_label("Email").wait_for()
    dark.photograph("sign-in-dark")
    assert dark.page.evaluate(FAINT) == []
    dark.sign_in(*owner_login(network.home, "north"))
    for visitor, colours in ((owner, "light"), (dark, "dark")):
        for title in ("Requests", "Budgets", "Rules", "Entries", "Network", "Account"):
            visitor.go(title)
            visitor.photograph(f"{title.lower()}-{colours}")
            assert visitor.page.get_by_test_id("stException").count() == 0
            assert visitor.page.evaluate(FAINT) == [], (title, colours)
        visitor.open_request(waiting)
        assert visitor.page.evaluate(FAINT) == [], colours
        visitor.photograph(f"request-{colours}")
    dark.photograph("request-phone-dark", width=390)
    dark.page.get_by_label("Language").click()
    dark.page.get_by_role("option", name="中文").click()
    dark.page.get_by_text("谁在请求").wait_for()
    dark.photograph("request-chinese-dark")
    said = catalogue("zh")
    for name in ("requests", "budgets", "policy"):
        dark.go(said[f"pages.{name}"])
        dark.described()
        dark.photograph(f"{name}-phone-chinese-dark", width=390)
        assert dark.sideways() <= 0, name


def test_rules_are_previewed_on_open_plans_signed_and_applied(
    owner: Visitor, network: Network
) -> None:
    """By somebody who clicks without her key: she is told, and keeps what she typed."""
    file = network.home.domain("north").datasets / "interactions" / "policy.toml"
    before = file.read_text()
    owner.go("Rules")
    page = owner.page
    page.get_by_role("spinbutton", name="max_releases").fill("2")
    page.get_by_role("button", name="Check and preview").first.click()
    page.get_by_text("What would change").wait_for()
    owner.photograph("rules-preview-light")
    assert file.read_text() == before
    page.get_by_label("Why? It goes into your signature").fill("fewer results")
    page.keyboard.press("Control+Enter")
    page.get_by_text("You change: max_releases from 1000 to 2").wait_for()
    key = network.home.owner_key("north")
    apply = page.get_by_role("button", name="Sign and apply these rules")
    page.get_by_label("Its passphrase").fill("typed already")
    apply.click()
    page.get_by_text("it hadn't arrived").wait_for()
    assert file.read_text() == before
    assert page.get_by_label("Its passphrase").input_value() == "typed already"
    page.get_by_label("Its passphrase").fill("")
    owner.choose_file(key)
    apply.click()
    page.get_by_text("north applies them from now on").wait_for()
    owner.photograph("rules-written-light")
    assert "max_releases = 2" in file.read_text()
    north = open_owner(network.home, "north")
    assert north.rules("interactions")["history"][0]["reason"] == "fewer results"
    north.write_rules("interactions", before, north.sign_rules("interactions", before, "as it was"))


def test_another_role_gets_nothing_by_address(
    browser: Any, dashboard: tuple[str, Line], network: Network, pictures: Path
) -> None:
    visitor = Visitor.open(browser, f"{dashboard[0]}/requests", pictures)
    visitor.sign_in(*account_login(network.home.accounts, "north"))
    assert not set(visitor.menu()) & {"Requests", "Budgets", "Rules"}
    assert "Requests that wait" not in visitor.text()
    kept = visitor.page.evaluate("JSON.stringify([localStorage, sessionStorage, document.cookie])")
    _, password = account_login(network.home.accounts, "north")
    assert password not in kept + visitor.page.url


def test_a_node_that_goes_down_is_shown_as_such(
    browser: Any, network: Network, pictures: Path, tmp_path: Path
) -> None:
    with served(network.home, "south", tmp_path) as (address, line):
        visitor = Visitor.open(browser, address, pictures)
        visitor.sign_in(*owner_login(network.home, "south"))
        line.garble()
        visitor.page.get_by_test_id("stSidebarNav").get_by_role("link", name="Rules").click()
        visitor.page.get_by_role("heading", name="Rules", exact=True).wait_for()
        visitor.page.get_by_test_id("stAlert").first.wait_for()
        visitor.settle()
        assert "Maintenance" not in visitor.text()
        visitor.photograph("node-garbled-light")
        line.cut()
        visitor.page.get_by_test_id("stSidebarNav").get_by_role("link", name="Budgets").click()
        visitor.page.get_by_text("does not answer").first.wait_for()
        visitor.photograph("node-down-light")
        assert visitor.page.get_by_test_id("stException").count() == 0
        assert "Traceback" not in visitor.text()
