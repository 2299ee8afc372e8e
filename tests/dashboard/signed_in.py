"""A dashboard in this process, signed in at the nodes of a network of three."""

import json
import sys
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

import dashboard
from coterie.home import Home
from coterie.pages import Place, dashboard_command

PAGE = Path(dashboard.__file__).parent / "entry" / "page.py"


def open_dashboard(
    monkeypatch: pytest.MonkeyPatch, home: Home, name: str, email: str, password: str
) -> AppTest:
    """The dashboard of one domain after signing in with an account."""
    command = dashboard_command(home, name, None, Place())
    monkeypatch.setattr(sys, "argv", [str(PAGE), *command[command.index("--") + 1 :]])
    page = AppTest.from_file(str(PAGE), default_timeout=300).run()
    page.text_input[0].set_value(email)
    page.text_input[1].set_value(password)
    return page.button[0].click().run()


def owner_login(home: Home, name: str) -> tuple[str, str]:
    """The owner's email and password."""
    account = json.loads(home.owner_login(name).read_text())
    return account["email"], account["password"]


def account_login(file: Path, name: str) -> tuple[str, str]:
    """The email and password of an invited account."""
    account = json.loads(file.read_text())[name]
    return account["email"], account["password"]


def open_page(page: AppTest, name: str, **query: str) -> AppTest:
    """Another page of the menu, as if its link was followed."""
    for key, value in query.items():
        page.query_params[key] = value
    page._page_hash = page.session_state["pages"][name]._script_hash
    return page.run()
