"""The owner's page before anyone has signed in, and when its node is down."""

import socket
import sys
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

import dashboard
from dashboard.session import plain, read_key
from policies.approvals import OwnerKeyError, create_owner_key, owner_key_hex

PAGE = Path(dashboard.__file__).with_name("app.py")


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch) -> AppTest:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    monkeypatch.setattr(sys, "argv", [str(PAGE), "--domain", "north", "--url", url])
    return AppTest.from_file(str(PAGE), default_timeout=60).run()


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


def test_a_node_that_is_down_is_told_in_a_sentence_without_a_traceback(page: AppTest) -> None:
    sign_in(page)
    assert not page.exception
    assert [
        "does not answer" in error.value and "Is it up?" in error.value.replace("\\", "")
        for error in page.error
    ] == [True]
    assert not page.header


def test_a_failed_sign_in_opens_no_session(page: AppTest) -> None:
    sign_in(page)
    kept = {str(key) for key in page.session_state.filtered_state}
    assert "owner" not in kept


def test_words_of_others_are_shown_without_links_or_images() -> None:
    shown = plain("![x](https://evil.example/a.png) <b>")
    assert "\\!\\[x\\]" in shown
    assert "https\\:\\/\\/evil\\.example" in shown
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
