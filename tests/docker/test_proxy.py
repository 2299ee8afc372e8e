"""The compose file's own commands as plain processes: north on Postgres, behind nginx, mutual TLS.

Names and ports are replaced, since there are no containers; nothing else of the commands and of
nginx.conf is.
"""

import json
import os
import shutil
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests
from typer.testing import CliRunner

from coterie.cli import app
from coterie.home import Home
from coterie.partners import invite
from coterie.processes import _wait_until_ready as wait_until_ready
from coterie.processes import free_ports
from network import tls
from network.client import LoginFailed, NodeClient, log_in
from network.federation import Account, read_accounts
from tests.docker.test_docker import COMPOSE, NGINX, SERVICES
from tests.network_of_three import ITEMS, interactions
from tests.policies.postgres import new_database

pytestmark = pytest.mark.nodes

NAMES = ("hub", "north", "east", "south")


@dataclass(frozen=True)
class Site:
    """North behind the proxy, as its owner and a scientist know it."""

    home: Home
    account: Account
    node: str
    proxy: str
    log: Path

    @property
    def certificate(self) -> str:
        return str(self.home.path / "proxy" / "tls.pem")


@contextmanager
def names_below_localhost() -> Iterator[None]:
    """Let this process find them here (RFC 6761, 6.3), as browsers do and not every resolver."""
    look_up = socket.getaddrinfo

    def here(host: Any, *more: Any, **also: Any) -> Any:
        return look_up("127.0.0.1" if str(host).endswith(".localhost") else host, *more, **also)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket, "getaddrinfo", here)
        yield


def command_of(service: str, **replaced: str) -> list[str]:
    return [replace(argument, replaced) for argument in SERVICES[service]["command"]]


def replace(text: str, replaced: dict[str, str]) -> str:
    for old, new in replaced.items():
        text = text.replace(old, new)
    return text


def run(*arguments: str) -> None:
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == 0, result.output


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, postgres_server: str) -> Iterator[Site]:
    nginx = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if nginx is None:
        pytest.skip("nginx isn't installed (Debian: apt-get install nginx-light)")
    root = tmp_path_factory.mktemp("site")
    node, outside, alive = free_ports(3)
    with names_below_localhost():
        place = {
            "/var/lib/coterie": str(root),
            "0.0.0.0": "127.0.0.1",
            "8080": str(node),
            ":8443": f":{outside}",
            "172.30.11.0/24": "127.0.0.1/32",
            "postgresql+psycopg2://coterie@north-database:5432/coterie": without_password(
                root, new_database(postgres_server)
            ),
        }
        run(*command_of("proxy-setup", **place))
        run(*command_of("north-setup", **place))
        interactions("north").to_csv(root / "north.csv", index=False)
        (root / "items.txt").write_text("".join(f"item-{i}\n" for i in range(ITEMS)))
        file, items = str(root / "north.csv"), str(root / "items.txt")
        run("domain", "data", "north", "--home", str(root), "--file", file, "--catalogue", items,
            "--users", "100")  # fmt: skip
        home = Home(root)
        folder = home.domain("north").path
        for name in ("clients.pem", "proxy.pem"):
            shutil.copy(root / "proxy" / "tls.pem", folder / name)
        for name in NAMES:
            (root / "certificates" / f"{name}.pem").touch()
            if name != "north":
                shutil.copy(
                    root / "certificates" / "north.pem", root / "certificates" / f"{name}.pem"
                )
        log = root / "north.log"
        with log.open("wb") as file:
            started = [
                subprocess.Popen(
                    [sys.executable, "-m", "coterie.cli", *command_of("north", **place)],
                    stdout=file,
                    stderr=file,
                ),
                subprocess.Popen(
                    nginx_command(nginx, root, node, outside, alive), stdout=file, stderr=file
                ),
            ]
            try:
                url = f"https://north.localhost:{outside}"
                tls.trust(url, (root / "proxy" / "tls.pem").read_text())
                wait_until_ready("north", started[0], log, 0, f"{url}/readyz")
                invite(home, "north", "ada@university.example", "scientist", root / "ada.json")
                account = read_accounts(root / "ada.json")["north"]
                assert account.url == url
                yield Site(home, account, f"https://127.0.0.1:{node}", url, log)
            finally:
                for process in started:
                    process.terminate()
                for process in started:
                    process.wait(120)


def without_password(root: Path, url: str) -> str:
    """The URL as the compose file has it; its password lies in the file that set-up names."""
    user, rest = url.split("@")
    scheme, password = user.rsplit(":", 1)
    (root / "database").mkdir(mode=0o700)
    (root / "database" / "password").write_text(password)
    return f"{scheme}@{rest}"


def nginx_command(nginx: str, root: Path, node: int, outside: int, alive: int) -> list[str]:
    config = replace(
        NGINX,
        {
            "/tmp/": f"{root}/nginx-",
            "/var/lib/coterie": str(root),
            "listen 8443": f"listen 127.0.0.1:{outside}",
            "127.0.0.1:8081": f"127.0.0.1:{alive}",
            "https://north:8080": f"https://127.0.0.1:{node}",
            "hub:8080": "127.0.0.1:9",
            "east:8080": "127.0.0.1:9",
            "south:8080": "127.0.0.1:9",
        },
    )
    (root / "nginx.conf").write_text(config)
    more = "daemon off;" + (" user root;" if os.getuid() == 0 else "")
    return [nginx, "-c", str(root / "nginx.conf"), "-p", str(root), "-g", more]


def ask(
    url: str, path: str, certificate: str, method: str = "GET", **more: Any
) -> requests.Response:
    with requests.Session() as session:
        tls.trust(url, Path(certificate).read_text())
        return tls.secured(session, url).request(method, url + path, timeout=120, **more)


@pytest.fixture
def ada(site: Site, monkeypatch: pytest.MonkeyPatch) -> NodeClient:
    """The invited scientist, with what her invitation holds and nothing else."""
    monkeypatch.setattr(tls, "_known", {})
    found = site.account
    return log_in(found.url, found.email, found.password, found.node_key, found.certificate)


def test_an_invited_scientist_works_through_the_proxy(ada: NodeClient, site: Site) -> None:
    assert json.loads(ada.call("describe"))["node_key"] == site.account.node_key
    assert site.home.domain("north").settings().database == "postgres"
    assert COMPOSE["services"]["north"]["depends_on"]["north-database"]


def test_nobody_reaches_the_node_around_it(site: Site) -> None:
    """The node asks its callers for a certificate, and takes the proxy's (and its own)."""
    with pytest.raises(requests.ConnectionError):
        ask(site.node, "/healthz", str(site.home.domain("north").path / "tls.pem"))


@pytest.mark.parametrize("path", ["/metrics", "/", "/api/v2/register", "/docs", "/coterie/v1/../x",
                                  "/api/v2/api_call/", "/nginx.conf"])  # fmt: skip
def test_other_paths_end_at_the_proxy(path: str, site: Site) -> None:
    answer = ask(site.proxy, path, site.certificate)
    assert answer.status_code == 404
    assert "x-request-id" not in answer.headers, "the node wasn't asked"


def test_bodies_pass_up_to_the_limit(site: Site) -> None:
    for size, by in ((16 * 2**20, "node"), (18 * 2**20, "proxy")):
        answer = ask(site.proxy, "/api/v2/api_call", site.certificate, "POST", data=bytes(size))
        assert answer.status_code == {"node": 400, "proxy": 413}[by]
        assert ("x-request-id" in answer.headers) == (by == "node")


def test_a_callers_claims_about_itself_are_dropped(site: Site) -> None:
    claims = {"X-Forwarded-For": "203.0.113.9", "X-Forwarded-Proto": "http", "Forwarded": "for=x"}
    body = {"email": "eve@brute.example", "password": "a wrong password"}
    answer = ask(site.proxy, "/api/v2/login", site.certificate, "POST", json=body, headers=claims)
    assert answer.status_code == 200
    refused = [line for line in site.log.read_text().splitlines() if "login refused" in line]
    assert json.loads(refused[-1])["address"] == "127.0.0.1"
    assert "203.0.113.9" not in site.log.read_text()


def test_names_that_nobody_has_get_no_answer(site: Site) -> None:
    with pytest.raises(requests.ConnectionError):
        ask(site.proxy, "/healthz", site.certificate, headers={"Host": "west.localhost"})


def test_the_proxy_speaks_tls_1_3_only(site: Site) -> None:
    context = ssl.create_default_context(cafile=site.certificate)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    address = urlsplit(site.proxy)
    with (
        socket.create_connection((address.hostname, address.port)) as line,
        pytest.raises(ssl.SSLError),
    ):
        context.wrap_socket(line, server_hostname=address.hostname)


def test_a_wrong_password_waits_behind_the_proxy_too(ada: NodeClient, site: Site) -> None:
    found, said = site.account, ""
    # Five are free, and the first waits are short: a slow machine needs some more.
    for _ in range(12):
        with pytest.raises(LoginFailed) as refused:
            log_in(found.url, "mary@brute.example", "a wrong password", found.node_key)
        said += str(refused.value)
    assert "Too many wrong passwords" in said
