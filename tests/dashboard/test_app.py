"""The shell before anyone has signed in, and when its node or the hub is down."""

import socket
import sys
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

import dashboard
from coterie.home import Home
from coterie.pages import Place, hub_dashboard_command
from dashboard.app import ICONS, PAGES
from dashboard.options import read_options
from dashboard.session import plain
from dashboard.signing import read_key
from policies.approvals import OwnerKeyError, create_owner_key, owner_key_hex

ROOM = Path(dashboard.__file__).parent
PAGE = ROOM / "entry" / "page.py"


@pytest.fixture
def url() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}"


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch, url: str) -> AppTest:
    monkeypatch.setattr(sys, "argv", [str(PAGE), "--domain", "north", "--url", url])
    return AppTest.from_file(str(PAGE), default_timeout=300).run()


def sign_in(page: AppTest) -> AppTest:
    page.text_input[0].set_value("owner@north.example")
    page.text_input[1].set_value("a password")
    return page.button[0].click().run()


def test_without_sign_in_the_page_shows_the_form_and_no_data(page: AppTest) -> None:
    assert [field.label for field in page.text_input] == ["Email", "Password"]
    assert [button.label for button in page.button] == ["Sign in"]
    assert not page.header
    assert not page.dataframe
    assert not page.code
    assert not page.exception


def test_the_form_is_in_the_language_that_is_chosen(page: AppTest) -> None:
    page.selectbox(key="language").select("zh").run()
    assert [field.label for field in page.text_input] == ["邮箱", "密码"]
    assert not page.exception


def test_a_node_that_is_down_is_told_in_a_sentence_without_a_traceback(page: AppTest) -> None:
    sign_in(page)
    assert not page.exception
    assert [
        "does not answer" in error.value and "Is it up?" in error.value.replace("\\", "")
        for error in page.error
    ] == [True]
    assert [button.label for button in page.button] == ["Sign in"]


def test_a_failed_sign_in_opens_no_session_and_keeps_no_password(page: AppTest) -> None:
    sign_in(page)
    kept = page.session_state.filtered_state
    assert "session" not in kept


def test_a_hub_that_is_down_is_told_in_a_sentence(
    monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.setattr(sys, "argv", [str(PAGE), "--hub", url])
    page = AppTest.from_file(str(PAGE), default_timeout=300).run()
    assert not page.exception
    assert "does not answer" in page.error[0].value
    assert "No domain to sign in to" in page.info[0].value


def test_words_of_others_are_shown_without_links_or_images() -> None:
    shown = plain("![x](https://evil.example/a.png) <b>")
    assert "\\!\\[x\\]" in shown
    assert "https\\:\u2060\\/\\/evil\\.example" in shown
    assert "WWW\u2060\\." in plain("WWW.evil.example")
    assert "\\<b\\>" in shown


def test_the_owners_key_opens_with_its_passphrase_only(tmp_path: Path) -> None:
    key = create_owner_key(tmp_path / "owner.pem", "long enough")
    pem = (tmp_path / "owner.pem").read_bytes()
    assert owner_key_hex(read_key(pem, "long enough")) == owner_key_hex(key)
    for wrong in ("", "another"):
        with pytest.raises(OwnerKeyError):
            read_key(pem, wrong)
    with pytest.raises(OwnerKeyError):
        read_key(b"no key", "")


def test_every_page_of_the_menu_is_a_module_with_an_icon() -> None:
    for names in PAGES.values():
        for name in names:
            assert (ROOM / f"{name}.py").exists()
            assert name in ICONS


def test_a_path_prefix_and_tls_are_passed_to_the_pages_server(tmp_path: Path) -> None:
    place = Place("0.0.0.0", 8443, "/coterie/north/", tmp_path / "a.pem", tmp_path / "a.key")
    assert place.address == "https://0.0.0.0:8443/coterie/north"
    command = hub_dashboard_command(Home(tmp_path), "https://hub.example", None, place)
    assert command[command.index("--server.baseUrlPath") + 1] == "coterie/north"
    assert command[command.index("--server.sslKeyFile") + 1] == str(tmp_path / "a.key")
    options = read_options(command[command.index("--") + 1 :])
    assert (options.hub, options.domain) == ("https://hub.example", None)
