"""The directory: cards of members, signed by themselves, never older than the one listed."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from coterie.home import Home
from coterie.hub import start_hub, stop_hub
from coterie.partners import stop_domain
from coterie.processes import free_ports
from domains.folder import public_hex
from network.hub import (
    Card,
    HubError,
    admit_member,
    announce,
    create_hub,
    directory,
    new_card,
    read_settings,
)
from tests.network_of_three import create_partner
from tests.nursery import Nursery

OWNER = "ab" * 32
KEY = Ed25519PrivateKey.generate()


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    return Home(tmp_path_factory.mktemp("hub"))


@pytest.fixture(scope="module")
def hub(home: Home) -> Iterator[str]:
    port = free_ports(1)[0]
    start_hub(home, "127.0.0.1", port)
    admit_member(home.hub, "north", public_hex(KEY))
    yield f"http://127.0.0.1:{port}"
    stop_hub(home)


def card(key: Ed25519PrivateKey = KEY, name: str = "north") -> Card:
    return new_card(name, "http://127.0.0.1:8101", OWNER, key)


def test_a_card_is_valid_as_signed_and_not_a_letter_otherwise() -> None:
    signed = card()
    assert signed.is_valid()
    for change in ({"name": "south"}, {"url": "http://127.0.0.1:9"}, {"owner_key": "cd" * 32},
                   {"time": signed.time + 1}, {"signature": ""},
                   {"node_key": public_hex(Ed25519PrivateKey.generate())}):  # fmt: skip
        assert not signed.model_copy(update=change).is_valid(), change


def test_a_hub_is_made_once_and_keeps_its_key(tmp_path: Path) -> None:
    made = create_hub(tmp_path / "hub", "127.0.0.1", 8100)
    key = (tmp_path / "hub" / "node.key").read_text()
    assert (
        create_hub(tmp_path / "hub", "127.0.0.1", 9999) == made == read_settings(tmp_path / "hub")
    )
    assert (tmp_path / "hub" / "node.key").read_text() == key
    with pytest.raises(HubError, match="coterie hub up"):
        read_settings(tmp_path / "nowhere")


@pytest.mark.nodes
def test_only_members_are_listed(hub: str) -> None:
    announce(hub, card())
    for stranger in (card(Ed25519PrivateKey.generate()), card(KEY, "south")):
        with pytest.raises(HubError, match="Not a member's card"):
            announce(hub, stranger)
    with pytest.raises(HubError, match="Not a member's card"):
        announce(hub, card().model_copy(update={"url": "http://127.0.0.1:6666"}))
    listed = directory(hub)
    assert listed["north"].url == card().url
    assert "south" not in listed


@pytest.mark.nodes
def test_an_old_card_does_not_replace_a_newer_one(hub: str) -> None:
    announce(hub, card())
    old = card().model_copy(update={"time": int(time.time()) - 1000}).signed(KEY)
    with pytest.raises(HubError, match="older card"):
        announce(hub, old)


@pytest.mark.nodes
def test_a_node_in_the_foreground_announces_itself(
    home: Home, hub: str, nursery: Nursery, tmp_path: Path
) -> None:
    create_partner(home, "west")
    admit_member(home.hub, "west", public_hex(home.domain("west").node_key()))
    command = ["coterie.cli", "domain", "up", "west", "--foreground", "--hub", hub]
    with (tmp_path / "output").open("wb") as out:
        words = [*command, "--home", str(home.path)]
        process = nursery.run(words, out.fileno(), environment=os.environ)
    try:
        while "west" not in directory(hub):
            assert process.poll() is None, (tmp_path / "output").read_text()
        # Remembered before it is announced: no dealer may have this key.
        hub_key = Ed25519PrivateKey.from_private_bytes(
            bytes.fromhex((home.hub / "node.key").read_text())
        )
        assert home.domain("west").settings().hubs == (public_hex(hub_key),)
    finally:
        assert stop_domain(home, "west")


@pytest.mark.nodes
@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 422),
        (b"[]", 422),
        (b"{", 422),
        (b"\xff\xfe", 422),
        (b'{"name": "north"}', 422),
        (b"[" * 4000, 422),
        (b'"' + b"a" * 5000 + b'"', 413),
    ],
    ids=lambda value: repr(value[:12]) if isinstance(value, bytes) else str(value),
)
def test_what_is_no_card_is_refused_and_the_hub_goes_on(hub: str, body: bytes, status: int) -> None:
    assert requests.post(f"{hub}/directory", data=body, timeout=120).status_code == status
    assert requests.get(f"{hub}/directory", timeout=120).status_code == 200


def test_a_hub_that_is_down_or_lies_is_a_sentence() -> None:
    with pytest.raises(HubError, match="does not answer"):
        directory(f"http://127.0.0.1:{free_ports(1)[0]}")
