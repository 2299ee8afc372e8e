"""A scientist's and an auditor's pages at real nodes, drawn in this process."""

import dataclasses
import math
import re
import runpy
import shutil
import socket
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import coterie as ct
import dashboard.session
from coterie.partners import invite
from dashboard.app import PAGES
from dashboard.datasets import mock_of
from dashboard.ledgers import look as look_at_ledger
from dashboard.network import look
from dashboard.quote import federation_of
from dashboard.session import Role, Session, everywhere
from dashboard.texts import catalogue
from network.client import NodeClient, NodeRefused
from network.federation import read_accounts
from policies.accounting import ADJACENCY
from tests.dashboard.visiting import drawn, said, session
from tests.network_of_three import NAMES, Network, counting_plan

pytestmark = [pytest.mark.nodes, pytest.mark.timeout(600)]


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
    cards = [str(each.value) for each in page.markdown]
    assert [name for name in NAMES if f"**{name}**" in cards] == list(NAMES)
    possible = {"within its rules", "leaves it to the owner", "refuses"}
    assert len([each for each in page.text if each.value in possible]) == len(NAMES)
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


@pytest.mark.parametrize("junk", ["nonsense", "{}", "[{}]"], ids=["words", "object", "list"])
def test_one_node_that_answers_junk_fails_no_page(
    network: Network, auditors: Path, ran: str, monkeypatch: pytest.MonkeyPatch, junk: str
) -> None:
    call = NodeClient.call

    def answered(node: NodeClient, method: str, **arguments: Any) -> Any:
        return junk if node.name == "south" else call(node, method, **arguments)

    roles: tuple[Role, ...] = ("scientist", "auditor")
    sessions = {role: session(network, role, auditors) for role in roles}
    monkeypatch.setattr(NodeClient, "call", answered)
    for role in roles:
        for name in PAGES[role]:
            page = drawn(name, sessions[role])
            assert not page.exception, (role, name)
            if name not in ("quote", "entries"):
                assert not page.error, (role, name, [each.value for each in page.error])
    assert look(sessions["auditor"])["south"]["state"] in ("refused", "unreadable")
    assert look(sessions["auditor"])["north"]["state"] == "up"


@pytest.mark.parametrize("how", ["hangs", "is down"])
def test_pages_name_a_node_that_hangs_or_is_down_and_show_the_others(
    network: Network, auditors: Path, ran: str, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    roles: tuple[Role, ...] = ("scientist", "auditor")
    monkeypatch.setattr(dashboard.session, "BRIEF_S", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        monkeypatch.setitem(dashboard.session._SILENT, url, math.inf)
        if how == "is down":
            silent.close()
        for role in roles:
            who = session(network, role, auditors)
            south = who.nodes["south"]
            client = NodeClient("south", url, south._key, south.server_uid, south.node_key)
            beside = dataclasses.replace(who, nodes={**who.nodes, "south": client})
            for name in PAGES[role]:
                page = drawn(name, beside)
                assert not page.exception, (role, name)
                assert not page.error, (role, name, [each.value for each in page.error])
                if name not in ("entries", "report", "comparison"):
                    shown = [said(page), *(str(each.value) for each in page.dataframe)]
                    assert "south" in "\n".join(shown), (role, name)
                if name in ("datasets", "plans", "run", "ledgers"):
                    assert [each for each in page.warning if "does not answer" in each.value], name
                    assert page.dataframe, name


def test_notebook_snippets_run_as_pasted(
    network: Network, auditors: Path, ran: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(network.home.accounts, tmp_path / "accounts.json")
    monkeypatch.chdir(tmp_path)
    for name in ("datasets", "quote", "plans", "run"):
        page = drawn(name, session(network, "scientist", auditors))
        if name in ("plans", "run"):
            page.selectbox[0].select(ran).run()
        snippet = page.code[-1].value
        assert "password" not in snippet
        file = tmp_path / f"{name}.py"
        file.write_text(snippet)
        found = runpy.run_path(str(file))
        assert {"fed", "state"} & set(found), name


def test_every_heading_of_every_table_is_in_chinese_for_chinese_readers(
    network: Network, auditors: Path, ran: str
) -> None:
    roles: tuple[Role, ...] = ("scientist", "auditor")
    for role in roles:
        for name in PAGES[role]:
            page = drawn(name, session(network, role, auditors), language="zh")
            if name in ("ledgers", "report", "quote"):
                page.button[0].click().run()
            assert not page.exception
            headings = {str(c) for each in page.dataframe for c in each.value.columns}
            shown = headings - {*NAMES, "user", "item", "HR@10", "mean count"}
            assert not [each for each in shown if not re.search("[\u4e00-\u9fff]", each)], name
            for words in (*page.title, *page.header, *page.subheader, *page.info):
                said_in = str(words.value)
                assert said_in in NAMES or re.search("[\u4e00-\u9fff]", said_in), (name, said_in)
