"""`coterie domain doctor`: a Coterie node has nothing bad; an open server is found out."""

import json
import ssl
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import requests
from typer.testing import CliRunner

from coterie.cli import app
from coterie.doctor import examine_on_its_machine
from coterie.exit_codes import ExitCode
from coterie.finding import Verdict
from coterie.outside import examine_from_outside
from coterie.processes import free_ports
from network import tls
from tests.network_of_three import Network

pytestmark = pytest.mark.nodes


class _Open(BaseHTTPRequestHandler):
    """Says yes to everything, to everyone."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Access-Control-Allow-Origin", "*")
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def do_POST(self) -> None:
        self.do_GET()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def open_server() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Open)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def test_a_node_shows_nothing_bad_from_outside(network: Network) -> None:
    findings = examine_from_outside(network.federation.nodes["north"].url)
    assert {f.verdict for f in findings} == {Verdict.GOOD}, findings


def test_an_open_server_is_found_out(open_server: str) -> None:
    bad = {f.check for f in examine_from_outside(open_server) if f.verdict is Verdict.BAD}
    assert {"unsigned calls", "register", "other web pages"} <= bad


class _Silent(ThreadingHTTPServer):
    def handle_error(self, *_: object) -> None:
        """Whoever finds this server too weak breaks off, and says why on his side."""


@pytest.fixture
def weak_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """TLS of last decade with a certificate about to expire, open to pages, an hour behind."""
    monkeypatch.setattr(tls, "_known", {})
    monkeypatch.setattr(tls, "VALID_DAYS", 10)

    class Late(_Open):
        def date_time_string(self, timestamp: float | None = None) -> str:
            return super().date_time_string(time.time() - 3600)

    tls.create_certificate(tmp_path, "weak", ["127.0.0.1"])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(tmp_path / "tls.pem", tmp_path / "tls.key")
    server = _Silent(("127.0.0.1", 0), Late)
    server.socket = context.wrap_socket(server.socket, True, do_handshake_on_connect=False)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"https://127.0.0.1:{server.server_port}"
    server.shutdown()


def test_a_weak_server_is_found_out_once_its_certificate_is_given(
    weak_server: str, tmp_path: Path
) -> None:
    (finding,) = examine_from_outside(weak_server)
    assert finding.verdict is Verdict.BAD
    assert "--certificate" in finding.detail
    given = ["--certificate", str(tmp_path / "tls.pem"), "--json"]
    result = CliRunner().invoke(app, ["domain", "doctor", weak_server, *given])
    assert result.exit_code == ExitCode.NOT_VERIFIED
    found = {each["check"]: each["verdict"] for each in json.loads(result.output)}
    assert {name for name, verdict in found.items() if verdict == "weak"} == {
        "encryption", "certificate shown", "headers"
    }  # fmt: skip
    assert {name for name, verdict in found.items() if verdict == "bad"} >= {
        "clock", "other web pages", "signed answers", "methods by another's key", "unsigned calls"
    }  # fmt: skip


def test_a_node_that_does_not_answer_is_bad(network: Network) -> None:
    (finding,) = examine_from_outside(f"http://127.0.0.1:{free_ports(1)[0]}")
    assert (finding.check, finding.verdict) == ("answers", Verdict.BAD)


def test_a_key_that_others_may_read_is_bad(network: Network) -> None:
    folder = network.home.domain("north").path

    def files() -> Verdict:
        found = {f.check: f for f in examine_on_its_machine(network.home, "north")}
        return found["files"].verdict

    assert files() is Verdict.GOOD
    folder.chmod(0o755)
    (folder / "node.key").chmod(0o644)
    try:
        assert files() is Verdict.BAD
    finally:
        (folder / "node.key").chmod(0o600)
        folder.chmod(0o700)


def test_secrets_elsewhere_and_the_owners_files_are_looked_at_too(
    network: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tmp_path.chmod(0o755)
    secret = tmp_path / "node.key"
    secret.write_text("0" * 64)
    secret.chmod(0o640)
    monkeypatch.setenv("COTERIE_SECRETS", str(tmp_path))

    def verdicts() -> dict[str, Verdict]:
        found = examine_on_its_machine(network.home, "north")
        return {each.check: each.verdict for each in found}

    assert verdicts()["secrets"] is Verdict.GOOD, "a group of its own may read them, as pods do"
    assert verdicts()["owner's files"] is Verdict.GOOD
    secret.chmod(0o644)
    assert verdicts()["secrets"] is Verdict.BAD


def test_the_command_names_each_wall_of_the_engine_and_ends_by_its_verdict(
    network: Network, open_server: str
) -> None:
    home = ["--home", str(network.home.path)]
    result = CliRunner().invoke(app, ["domain", "doctor", "north", "--json", *home])
    assert "engine: network" in result.output
    bad = CliRunner().invoke(app, ["domain", "doctor", open_server])
    assert bad.exit_code == ExitCode.NOT_VERIFIED


def test_health_tells_watchers_that_it_lives_and_nothing_private(network: Network) -> None:
    url = network.federation.nodes["north"].url
    assert requests.get(f"{url}/healthz", timeout=120).json() == {"status": "ok"}
    assert requests.get(f"{url}/readyz", timeout=120).status_code == 200
    text = requests.get(f"{url}/metrics", timeout=120).text
    assert 'coterie_requests_total{outcome="refused"}' in text
    names = {line.split("{")[0].split(" ")[0] for line in text.splitlines() if line[0] != "#"}
    assert names == {
        "coterie_requests_total",
        "coterie_uptime_minutes",
        "coterie_info",
    }
