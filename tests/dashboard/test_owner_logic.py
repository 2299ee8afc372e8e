"""The owner's pages without a browser: what they show, ask for and refuse, on a real node."""

import json
import secrets
from datetime import UTC, datetime

import pytest
from streamlit.testing.v1 import AppTest

from coterie.partners import open_owner
from dashboard.requests import deny_all
from dashboard.session import Session, plain
from policies.accounting import ADJACENCY
from policies.owner_policy import OwnerPolicy
from tests.dashboard.signed_in import open_dashboard, open_page, owner_login
from tests.network_of_three import Network, counting_plan

pytestmark = pytest.mark.nodes


@pytest.fixture
def page(network: Network, monkeypatch: pytest.MonkeyPatch) -> AppTest:
    """North's owner, signed in."""
    return open_dashboard(monkeypatch, network.home, "north", *owner_login(network.home, "north"))


def submitted(network: Network, purpose: str, epsilon: float = 0.2) -> str:
    once = f"{purpose} ({secrets.token_hex(3)})"
    plan = counting_plan(network.federation.data("interactions"), once, epsilon)
    network.federation.submit(plan)
    return network.federation.bind(plan).hash


def words(page: AppTest) -> str:
    kinds = (page.markdown, page.caption, page.text, page.warning, page.info, page.success)
    return "\n".join(str(each.value) for kind in kinds for each in kind)


def test_every_page_of_the_owner_is_drawn_without_an_error(page: AppTest) -> None:
    for name in ("budgets", "policy", "network", "account", "requests"):
        open_page(page, name)
        assert not page.exception, name
        assert not page.error, name


def test_a_request_that_is_not_known_is_told_in_a_sentence(page: AppTest) -> None:
    open_page(page, "request", plan="ab" * 32)
    assert not page.exception
    assert "knows no plan" in page.error[0].value


def test_an_approval_is_confirmed_beside_its_cost_and_takes_a_detached_signature(
    network: Network, page: AppTest
) -> None:
    plan_hash = submitted(network, "detached")
    open_page(page, "request", plan=plan_hash)
    assert "It takes epsilon" in words(page)
    assert plain(ADJACENCY) in words(page)
    page.session_state[f"decision-{plan_hash}"] = "approve"
    page.run()
    assert not [b for b in page.button if b.label == "Approve and sign"]
    page.text_area[0].set_value("as agreed").run()
    (confirmation,) = [each.value for each in page.warning if "You approve" in each.value]
    assert "takes epsilon" in confirmation
    signature = open_owner(network.home, "north").sign(plan_hash, "as agreed")
    fields = {field.label: field for field in page.text_input}
    fields["Signature made elsewhere"].set_value(signature)
    (approve,) = [b for b in page.button if b.label == "Approve and sign"]
    approve.click().run()
    assert not page.exception
    shown = open_owner(network.home, "north").show(plan_hash)
    assert (shown["status"], shown["reason"]) == ("approved", "as agreed")
    assert json.loads(shown["signature"])


def test_an_approval_without_key_or_signature_does_nothing(network: Network, page: AppTest) -> None:
    plan_hash = submitted(network, "unsigned")
    open_page(page, "request", plan=plan_hash)
    page.session_state[f"decision-{plan_hash}"] = "approve"
    page.run()
    page.text_area[0].set_value("as agreed").run()
    (approve,) = [b for b in page.button if b.label == "Approve and sign"]
    approve.click().run()
    assert "This needs your key" in page.error[0].value
    assert open_owner(network.home, "north").show(plan_hash)["status"] == "pending"


def test_of_many_denied_at_once_what_another_tab_decided_is_told(network: Network) -> None:
    first, second = submitted(network, "one of two"), submitted(network, "two of two")
    owner, now = open_owner(network.home, "north"), datetime.now(UTC)
    owner.approve(second, "in another tab")
    session = Session({"north": owner.node}, {}, "owner", owner.email, now, now)
    said = deny_all(session, [first, second], "too many at once")
    assert said.startswith("Denied: 1.")
    assert f"{second[:8]}: This plan is approved already" in said
    assert [owner.show(each)["status"] for each in (first, second)] == ["denied", "approved"]


def test_a_refused_request_explains_the_rule_that_did_it(network: Network, page: AppTest) -> None:
    plan_hash = submitted(network, "reads \u202e otherwise")
    open_page(page, "request", plan=plan_hash)
    assert "Why was this refused?" in words(page)
    assert "no owner can switch off" in words(page)


def test_rules_are_previewed_signed_and_apply_at_once(network: Network, page: AppTest) -> None:
    file = network.home.domain("north").datasets / "interactions" / "policy.toml"
    before = file.read_text()
    open_page(page, "policy")
    fields = {field.label: field for field in page.number_input}
    fields["max_releases"].set_value(2)
    next(b for b in page.button if b.label == "Check and preview").click().run()
    assert not page.exception
    assert "What would change" in [each.value for each in page.header]
    assert file.read_text() == before
    page.text_area(key="why-rules-interactions").set_value("fewer").run()
    assert "You change: max_releases from 1000 to 2" in words(page).replace("\\", "")
    (write,) = [b for b in page.button if b.label == "Sign and apply these rules"]
    write.click().run()
    assert "This needs your key" in page.error[0].value
    owner = open_owner(network.home, "north")
    fields = {field.label: field for field in page.text_input}
    changed = before + ("" if before.endswith("\n") else "\n") + "max_releases = 2\n"
    signature = owner.sign_rules("interactions", changed, "fewer")
    fields["Signature made elsewhere"].set_value(signature)
    (write,) = [b for b in page.button if b.label == "Sign and apply these rules"]
    try:
        write.click().run()
        assert "north applies them from now on" in words(page).replace("\\", "")
        assert OwnerPolicy.read(file).max_releases == 2
        rules = owner.rules("interactions")
        assert rules["applied"]
        assert rules["history"][0]["changes"] == [["max_releases", "1000", "2"]]
    finally:
        back = owner.sign_rules("interactions", before, "as it was")
        owner.write_rules("interactions", before, back)
