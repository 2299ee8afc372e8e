"""The byte boundary: nothing is interpreted before it is authenticated."""

import pytest
import requests
import syft as sy
from hypothesis import given, settings
from hypothesis import strategies as st
from syft.client.api import SyftAPICall
from syft.serde.serialize import _serialize
from syft.server.credentials import SyftSigningKey
from syft.types.uid import UID

from network.envelope import BytesRefused, open_envelope
from network.gate import API
from tests.network_of_three import Network


def signed_call(key: SyftSigningKey) -> bytes:
    call = SyftAPICall(server_uid=UID(), path="coterie.describe", args=[], kwargs={})
    return bytes(_serialize(call.sign(key), to_bytes=True))


@pytest.mark.parametrize("size", [0, 1, 10_000, 5_000_000])
def test_large_calls_in_many_segments_open_too(size: int) -> None:
    key = SyftSigningKey.generate()
    call = SyftAPICall(server_uid=UID(), path="p", args=[], kwargs={"x": b"a" * size})
    assert open_envelope(bytes(_serialize(call.sign(key), to_bytes=True))).message


def test_a_signed_call_opens_and_names_its_signer() -> None:
    key = SyftSigningKey.generate()
    assert open_envelope(signed_call(key)).key.hex() == str(key.verify_key)


def test_a_changed_byte_never_passes_as_another_message() -> None:
    """Every bit of every byte of a call, and every byte inverted."""
    blob = bytearray(signed_call(SyftSigningKey.generate()))
    genuine = open_envelope(bytes(blob))
    assert len(blob) > 500
    for position in range(len(blob)):
        for flip in (1, 2, 4, 8, 16, 32, 64, 128, 255):
            blob[position] ^= flip
            try:
                opened = open_envelope(bytes(blob))
            except BytesRefused:
                continue
            finally:
                blob[position] ^= flip
            assert opened.message == genuine.message
            assert opened.key == genuine.key


@settings(max_examples=1000, deadline=None)
@given(st.binary(max_size=2000))
def test_junk_is_refused(blob: bytes) -> None:
    with pytest.raises(BytesRefused):
        open_envelope(blob)


def test_an_unsigned_call_and_a_planted_field_are_refused() -> None:
    key = SyftSigningKey.generate()
    call = SyftAPICall(server_uid=UID(), path="user.get_all", args=[], kwargs={})
    with pytest.raises(BytesRefused):
        open_envelope(bytes(_serialize(call, to_bytes=True)))
    forged = call.sign(key)
    forged.signature = bytes(64)
    with pytest.raises(BytesRefused, match="signature"):
        open_envelope(bytes(_serialize(forged, to_bytes=True)))


@pytest.mark.nodes
def test_strangers_get_nothing_from_a_node(network: Network) -> None:
    url = network.federation.nodes["east"].url + API
    stranger = SyftSigningKey.generate()
    post = requests.post(f"{url}/api_call", data=signed_call(stranger), timeout=120)
    assert post.status_code == 401
    listing = requests.get(
        f"{url}/api",
        params={"verify_key": str(stranger.verify_key), "communication_protocol": "dev"},
        timeout=120,
    )
    assert listing.status_code == 401
    assert requests.post(f"{url}/api_call", data=b"junk", timeout=120).status_code == 400
    for path in ("register", "reset_password", "forgot_password", "stream/x/y/"):
        assert requests.post(f"{url}/{path}", data=b"", timeout=120).status_code in (404, 405)
    answer = requests.get(
        f"{url}/metadata", headers={"Origin": "https://evil.example"}, timeout=120
    )
    assert "access-control-allow-origin" not in answer.headers


@pytest.mark.nodes
def test_a_guest_session_is_refused(network: Network) -> None:
    guest = sy.login_as_guest(url=network.federation.nodes["east"].url)
    with pytest.raises(Exception, match="401"):
        guest.datasets.get_all()
