"""TLS on real processes: a node and a hub that serve it, and clients that take no other."""

import json
import ssl
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import requests
import syft as sy
from syft.client.client import HTTPConnection
from typer.testing import CliRunner

import coterie as ct
from coterie.backup import RestoreRefused, back_up, restore
from coterie.cli import app
from coterie.finding import Verdict
from coterie.heard import Partners
from coterie.home import Home
from coterie.outside import examine_from_outside
from coterie.partners import create_domain, invite, pin_peer, start_domain, stop_domain
from coterie.processes import free_ports
from domains.folder import public_hex
from network import tls
from network.answers import AnswerRefused
from network.client import LoginFailed, NodeUnreachable, log_in
from network.federation import read_accounts
from network.hub import HubError, admit_member, announce, create_hub, directory, new_card
from policies.ledger import Ledger
from tests.network_of_three import create_partner

pytestmark = pytest.mark.nodes


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """One partner whose node serves TLS, with an invited scientist."""
    place = Home(tmp_path_factory.mktemp("tls"))
    create_partner(place, "north", tls=True)
    start_domain(place, "north", None)
    invite(place, "north", "ada@university.example", "scientist", place.accounts)
    yield place
    stop_domain(place, "north")


@pytest.fixture
def forgetful(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that was told of no certificate yet."""
    monkeypatch.setattr(tls, "_known", {})


def account(home: Home) -> ct.Account:
    return read_accounts(home.accounts)["north"]


def test_an_invited_scientist_works_over_tls_on_any_port(home: Home, forgetful: None) -> None:
    invited = account(home)
    assert invited.url.startswith("https://127.0.0.1:")
    assert "BEGIN CERTIFICATE" in str(invited.certificate)
    federation = ct.connect(home.accounts, key=home.path / "scientist.pem")
    assert federation.data("interactions").items == 30


def test_syfts_own_client_does_too_after_importing_coterie(home: Home, forgetful: None) -> None:
    invited = account(home)
    tls.trust(invited.url, invited.certificate)
    ct.pin_node(invited.url, str(invited.node_key))
    client = sy.login(url=invited.url, email=invited.email, password=invited.password)
    assert client.datasets.get_all()[0].name == "interactions"


def test_a_certificate_that_nobody_vouched_for_is_not_taken(home: Home, forgetful: None) -> None:
    invited = account(home)
    with pytest.raises(NodeUnreachable, match="certificate"):
        log_in(invited.url, invited.email, invited.password, invited.node_key)


def test_another_certificate_than_the_known_one_is_not_taken(
    home: Home, forgetful: None, tmp_path: Path
) -> None:
    invited = account(home)
    other = tls.create_certificate(tmp_path, "coterie north", ["127.0.0.1"])
    with pytest.raises(NodeUnreachable, match="certificate"):
        log_in(invited.url, invited.email, invited.password, invited.node_key, other)


def test_a_name_that_is_not_in_the_certificate_is_not_taken(home: Home, forgetful: None) -> None:
    invited = account(home)
    elsewhere = invited.url.replace("127.0.0.1", "127.0.0.2")
    with pytest.raises(NodeUnreachable):
        log_in(elsewhere, invited.email, invited.password, None, invited.certificate)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_2])
def test_nothing_below_tls_1_3_is_spoken(home: Home, version: ssl.TLSVersion) -> None:
    parts = urlsplit(account(home).url)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version, context.maximum_version = ssl.TLSVersion.TLSv1, version
    import socket

    with (
        socket.create_connection((str(parts.hostname), int(parts.port or 0))) as line,
        pytest.raises((ssl.SSLError, ConnectionResetError)),
    ):
        context.wrap_socket(line)


def test_plain_http_on_the_tls_port_gets_no_answer(home: Home) -> None:
    with pytest.raises(requests.ConnectionError):
        requests.get(account(home).url.replace("https:", "http:") + "/healthz", timeout=120)


def test_a_password_is_never_sent_unencrypted_to_another_machine() -> None:
    with pytest.raises(LoginFailed, match="isn't encrypted"):
        log_in("http://north.example:8101", "ada@university.example", "a password")
    with pytest.raises(AnswerRefused, match="isn't encrypted"):
        HTTPConnection(url="http://192.0.2.1:8101").login("a@b.example", "a password")


def test_the_doctor_is_content_with_it(home: Home) -> None:
    tls.trust_own_server(account(home).url, home.domain("north").path)
    findings = examine_from_outside(account(home).url)
    assert {f.verdict for f in findings} == {Verdict.GOOD}, findings
    result = CliRunner().invoke(
        app, ["domain", "doctor", "north", "--json", "--home", str(home.path)]
    )
    (found,) = [f for f in json.loads(result.output) if f["check"] == "certificate"]
    assert found["verdict"] == "good"


def partner_of(home: Home, other: Home) -> Home:
    """A domain whose one partner is north, and which is north's."""
    create_domain(other, "west", "127.0.0.1", 8199, tls=True)
    west, north = other.domain("west"), home.domain("north")
    Ledger(west.ledger_url, "west", west.node_key()).open_budget("people", 8.0, 1e-5)
    for one, name, its in ((west, "north", north), (north, "west", west)):
        pin_peer(one, name, public_hex(its.node_key()), its.settings().owner_key)
    return other


def comes_back_by_the_word_of_a_partner_with_a_certificate_of_its_own(
    home: Home, west: Home, hub_url: str, hub: Home
) -> None:
    archive, elsewhere = west.path / "west.tar", Home(west.path / "new machine")
    back_up(west, "west", archive)
    certificate = hub.hub / "tls.pem"
    tls._known.clear()
    with pytest.raises(RestoreRefused, match="Not heard: north"):
        restore(elsewhere, "west", archive, partners=Partners(hub_url, certificate))
    arguments = ["domain", "restore", "west", str(archive), "--home", str(elsewhere.path)]
    arguments += ["--hub", hub_url, "--hub-certificate", str(certificate)]
    arguments += ["--certificate", str(home.domain("north").path / "tls.pem")]
    restored = CliRunner().invoke(app, arguments)
    assert restored.exit_code == 0, restored.output
    assert "west is back" in restored.output


def test_hub_and_domains_show_each_other_certificates(
    home: Home, forgetful: None, tmp_path: Path
) -> None:
    """A hub that lists `clients.pem` speaks with those alone."""
    from coterie.hub import start_hub, stop_hub

    hub = Home(tmp_path)
    (port,) = free_ports(1)
    create_hub(hub.hub, "127.0.0.1", port, tls=True)
    north = home.domain("north")
    west = partner_of(home, hub)
    listed = [north.path / "tls.pem", west.domain("west").path / "tls.pem"]
    (hub.hub / "clients.pem").write_text("".join(each.read_text() for each in listed))
    url = start_hub(hub, "127.0.0.1", port)
    try:
        certificate = (hub.hub / "tls.pem").read_text()
        node_key = north.node_key().public_key().public_bytes_raw().hex()
        admit_member(hub.hub, "north", node_key)
        card = new_card("north", account(home).url, "0" * 64, north.node_key())
        tls.trust(url, certificate)
        with pytest.raises(HubError, match="does not answer"):
            announce(url, card)
        with pytest.raises(HubError):
            directory(url)
        tls.trust(url, certificate, north.path / "tls.pem", north.path / "tls.key")
        announce(url, card)
        assert directory(url)["north"].node_key == node_key
        comes_back_by_the_word_of_a_partner_with_a_certificate_of_its_own(home, west, url, hub)
    finally:
        stop_hub(hub)


def test_the_certificate_and_key_are_made_for_one_name_and_kept_private(tmp_path: Path) -> None:
    settings = create_domain(
        Home(tmp_path), "east", "0.0.0.0", 8443, public_url="https://east.example:8443", tls=True
    )
    folder = Home(tmp_path).domain("east").path
    assert settings.tls
    names = ssl._ssl._test_decode_cert(str(folder / "tls.pem"))["subjectAltName"]  # type: ignore[attr-defined]
    assert ("DNS", "east.example") in names
    assert (folder / "tls.key").stat().st_mode & 0o777 == 0o600
    assert b"BEGIN CERTIFICATE REQUEST" in (folder / "tls.csr").read_bytes()
