"""The page's own server: TLS, a path prefix, and no other site's script on its WebSocket."""

import base64
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest
import requests
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

from coterie.home import Home
from coterie.pages import Place, hub_dashboard_command
from coterie.processes import free_ports
from network.tls import create_certificate


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A dashboard with TLS below a path; nobody needs to sign in for these."""
    folder = tmp_path_factory.mktemp("page")
    create_certificate(folder, "the page", ["127.0.0.1"])
    place = Place(
        "127.0.0.1", free_ports(1)[0], "/coterie/north", folder / "tls.pem", folder / "tls.key"
    )
    command = hub_dashboard_command(Home(folder), "http://127.0.0.1:9", None, place)
    with open(folder / "page.log", "w") as log:
        process = subprocess.Popen([sys.executable, *command], stdout=log, stderr=log)
    os.environ["REQUESTS_CA_BUNDLE"] = str(folder / "tls.pem")
    try:
        _wait_for(f"{place.address}/_stcore/health")
        yield place.address
    finally:
        del os.environ["REQUESTS_CA_BUNDLE"]
        process.terminate()
        process.wait(20)


def test_it_serves_tls_below_its_path_and_nowhere_else(address: str) -> None:
    assert address.startswith("https://")
    assert requests.get(f"{address}/", timeout=20).status_code == 200
    root = address.removesuffix("/coterie/north")
    assert requests.get(f"{root}/_stcore/health", timeout=20).status_code == 404
    with pytest.raises(requests.ConnectionError):
        requests.get(address.replace("https://", "http://"), timeout=20)


@pytest.mark.parametrize(("origin", "status"), [(None, 101), ("https://evil.example", 403)])
def test_only_its_own_page_may_open_its_websocket(
    address: str, origin: str | None, status: int
) -> None:
    own = "/".join(address.split("/")[:3])
    headers = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": base64.b64encode(os.urandom(16)).decode(),
        "Origin": origin or own,
    }
    answer = requests.get(f"{address}/_stcore/stream", headers=headers, timeout=30, stream=True)
    assert answer.status_code == status
    answer.close()


def _wait_for(url: str) -> None:
    """Until the page's server answers."""
    patient = Retry(connect=120, backoff_factor=0.1, backoff_max=0.5)
    with requests.Session() as session:
        session.mount("https://", HTTPAdapter(max_retries=patient))
        assert session.get(url, timeout=20).status_code == 200
