"""A scientist's and an auditor's pages in this process, signed in at the network of three."""

import re
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from streamlit.testing.v1 import AppTest

import coterie as ct
from dashboard.session import Role, Session
from tests.network_of_three import Network

WATCHER = "watch@dashboard.example"


def session(network: Network, role: Role, auditors: Path, runs: Path | None = None) -> Session:
    nodes = network.federation.nodes
    if role == "auditor":
        nodes = ct.Auditor.connect(auditors).nodes
    now = datetime.now(UTC)
    return Session(
        nodes, {}, role, WATCHER, now, now + timedelta(hours=1), runs=runs or network.home.runs
    )


def drawn(name: str, who: Session, language: str = "en") -> AppTest:
    """A page of this session, run in this process."""

    def script(page: str) -> None:
        from importlib import import_module

        import streamlit as st

        import_module(f"dashboard.{page}").draw(st.session_state["session"])

    page = AppTest.from_function(script, kwargs={"page": name}, default_timeout=300)
    page.session_state["session"] = who
    page.session_state["language"] = language
    return page.run()


def said(page: AppTest) -> str:
    elements = [*page.markdown, *page.caption, *page.info, *page.warning, *page.error]
    return "\n".join(str(each.value) for each in elements)


def said_in_chinese(lines: Iterable[str], translated: Callable[[str], str]) -> None:
    """Every line has Chinese words, and every figure and name that it had."""
    for line in lines:
        said = translated(line)
        assert re.search("[\u4e00-\u9fff]", said), line
        for kept in re.findall(r"\d[\d.e-]*\d|'[a-z]+'", line):
            assert kept.strip("'") in said, (kept, said)
