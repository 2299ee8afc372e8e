"""Mutual TLS: a server takes the clients it lists, and clients take the server they know."""

import ssl
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import requests
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from network import tls
from network.answers import ask
from network.reaching import why_unreached

BOTH = (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH)


class Authority:
    """Signs what `tls.csr` asks for, as a partner's own authority or a public one would."""

    def __init__(self, name: str) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        own = self._begun(self.subject, self.key.public_key(), 365)
        constraints = x509.BasicConstraints(ca=True, path_length=0)
        signed = own.add_extension(constraints, critical=True).sign(self.key, hashes.SHA256())
        self.pem = signed.public_bytes(Encoding.PEM)

    def sign(
        self,
        folder: Path,
        days: int = 30,
        uses: tuple[x509.ObjectIdentifier, ...] = BOTH,
    ) -> bytes:
        request = x509.load_pem_x509_csr((folder / "tls.csr").read_bytes())
        begun = self._begun(request.subject, request.public_key(), days)
        for extension in request.extensions:
            begun = begun.add_extension(extension.value, extension.critical)
        begun = begun.add_extension(x509.ExtendedKeyUsage(uses), critical=False)
        return begun.sign(self.key, hashes.SHA256()).public_bytes(Encoding.PEM)

    def _begun(self, subject: x509.Name, key: object, days: int) -> x509.CertificateBuilder:
        now = datetime.now(UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.subject)
            .public_key(key)  # type: ignore[arg-type]
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=60))
            .not_valid_after(now + timedelta(days=days))
        )


class _Yes(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Tests print nothing."""


class _Quiet(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Yes)
        context = tls.server_context(folder)
        self.socket = context.wrap_socket(
            self.socket, server_side=True, do_handshake_on_connect=False
        )

    def handle_error(self, *_: object) -> None:
        """A handshake that fails is what these tests are about."""


@pytest.fixture
def authority() -> Authority:
    return Authority("an authority")


@pytest.fixture
def node(tmp_path: Path, authority: Authority) -> Path:
    """A node's folder: its certificate signed by the authority, ada listed among its clients."""
    folder = made(tmp_path, "node", ["127.0.0.1", "node.example"])
    (folder / "tls.pem").write_bytes(authority.sign(folder) + authority.pem)
    ada = made(tmp_path, "ada", [])
    (folder / "clients.pem").write_bytes((ada / "tls.pem").read_bytes())
    return folder


@pytest.fixture
def served(node: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(tls, "_known", {})
    server = _Quiet(node)
    threading.Thread(target=partial(server.serve_forever, 0.01), daemon=True).start()
    yield f"https://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def made(place: Path, name: str, hosts: list[str]) -> Path:
    folder = place / name
    folder.mkdir()
    tls.create_certificate(folder, name, hosts)
    return folder


def told(url: str, known: bytes, shown: Path | None) -> str:
    """What the client is told: 'taken', or why not."""
    own = () if shown is None else (shown / "tls.pem", shown / "tls.key")
    tls.trust(url, known.decode(), *own)
    with requests.Session() as session:
        try:
            return "taken" if ask(session, "GET", f"{url}/healthz").status == 200 else "odd"
        except requests.RequestException as error:
            return why_unreached(error)


def test_who_is_listed_is_taken_and_so_is_the_owner(
    served: str, node: Path, authority: Authority
) -> None:
    assert told(served, authority.pem, node.parent / "ada") == "taken"
    tls.trust_own_server(served, node)
    with requests.Session() as session:
        assert ask(session, "GET", f"{served}/healthz").status == 200


@pytest.mark.parametrize("who", ["nobody", "unlisted", "same authority", "with its chain"])
def test_whoever_is_not_listed_is_turned_away_whoever_signed(
    who: str, served: str, node: Path, authority: Authority
) -> None:
    """The authority that signed the node's own certificate signs for others too."""
    mallory = made(node.parent, "mallory", [])
    if who in ("same authority", "with its chain"):
        chain = authority.pem if who == "with its chain" else b""
        (mallory / "tls.pem").write_bytes(authority.sign(mallory) + chain)
    said = told(served, authority.pem, None if who == "nobody" else mallory)
    assert "certificate of yours" in said


def test_a_listed_authority_s_clients_are_taken_until_they_expire(
    node: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tls, "_known", {})
    partners = Authority("the partners")
    (node / "clients.pem").write_bytes(partners.pem)
    server = _Quiet(node)
    threading.Thread(target=partial(server.serve_forever, 0.01), daemon=True).start()
    url = f"https://127.0.0.1:{server.server_port}"
    known = (node / "tls.pem").read_bytes()
    east = made(node.parent, "east", [])
    (east / "tls.pem").write_bytes(partners.sign(east))
    assert told(url, known, east) == "taken"
    (east / "tls.pem").write_bytes(partners.sign(east, days=-1))
    assert told(url, known, east) != "taken"
    server.shutdown()
    server.server_close()


def test_a_client_says_what_is_wrong_with_the_servers(
    node: Path, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    (node / "clients.pem").unlink()
    (node / "tls.pem").write_bytes(authority.sign(node, days=-1))
    monkeypatch.setattr(tls, "_known", {})
    server = _Quiet(node)
    threading.Thread(target=partial(server.serve_forever, 0.01), daemon=True).start()
    url = f"https://127.0.0.1:{server.server_port}"
    assert told(url, authority.pem, None) == (
        "its certificate isn't taken: certificate has expired"
    )
    assert "its certificate isn't taken" in told(url, Authority("another").pem, None)
    assert told(url.replace("https", "http"), authority.pem, None).startswith("it hung up")
    server.shutdown()
    server.server_close()


def test_a_name_that_is_not_in_the_certificate_is_named(
    tmp_path: Path, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tls, "_known", {})
    folder = made(tmp_path, "elsewhere", ["elsewhere.example"])
    (folder / "tls.pem").write_bytes(authority.sign(folder))
    server = _Quiet(folder)
    threading.Thread(target=partial(server.serve_forever, 0.01), daemon=True).start()
    url = f"https://127.0.0.1:{server.server_port}"
    assert "IP address mismatch" in told(url, authority.pem, None)
    server.shutdown()
    server.server_close()


def test_a_certificate_for_servers_only_is_named_before_the_owner_is_locked_out(
    node: Path, authority: Authority
) -> None:
    only = authority.sign(node, uses=(ExtendedKeyUsageOID.SERVER_AUTH,))
    (node / "tls.pem").write_bytes(only)
    with pytest.raises(tls.TlsError, match="signed for servers only"):
        tls.server_context(node)
    (node / "clients.pem").unlink()
    assert tls.server_context(node).minimum_version is ssl.TLSVersion.TLSv1_3


def test_files_that_are_missing_or_broken_are_named(tmp_path: Path) -> None:
    with pytest.raises(tls.TlsError, match="can't be read"):
        tls.trust_files("https://north.example", tmp_path / "nothing.pem")
    (tmp_path / "odd.pem").write_bytes(b"\xff\xfe")
    with pytest.raises(tls.TlsError, match="can't be read"):
        tls.trust_files("https://north.example", tmp_path / "odd.pem")
