"""The page's own server: TLS, a path prefix, and no other site's script on its WebSocket."""

import base64
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress

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
        _wait_for(f"{place.address}/_stcore/health", process)
        yield place.address
    finally:
        del os.environ["REQUESTS_CA_BUNDLE"]
        process.terminate()
        process.wait(120)


def test_it_serves_tls_below_its_path_and_nowhere_else(address: str) -> None:
    assert address.startswith("https://")
    assert requests.get(f"{address}/", timeout=120).status_code == 200
    root = address.removesuffix("/coterie/north")
    assert requests.get(f"{root}/_stcore/health", timeout=120).status_code == 404
    with pytest.raises(requests.ConnectionError):
        requests.get(address.replace("https://", "http://"), timeout=120)


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
    answer = requests.get(f"{address}/_stcore/stream", headers=headers, timeout=120, stream=True)
    assert answer.status_code == status
    answer.close()


@pytest.mark.parametrize("method", ["PUT", "DELETE"])
def test_nobody_uploads_or_removes_a_key_without_the_pages_token(address: str, method: str) -> None:
    """Streamlit's uploader takes an owner's key; another site's script has no token of the page."""
    key = f"{address}/_stcore/upload_file/a-session/a-file"
    for headers in ({}, {"X-Xsrftoken": "guessed"}, {"Origin": "https://evil.example"}):
        answer = requests.request(method, key, headers=headers, data=b"x", timeout=120)
        assert answer.status_code == 403
        assert answer.headers.get("Access-Control-Allow-Origin") != "https://evil.example"


def test_with_a_token_a_file_is_taken_for_an_open_session_only(address: str) -> None:
    with requests.Session() as visitor:
        visitor.get(f"{address}/_stcore/health", timeout=120)
        token = visitor.cookies["_streamlit_xsrf"]
        answer = visitor.put(
            f"{address}/_stcore/upload_file/a-session/a-file",
            files={"file": ("owner.pem", b"a key")},
            headers={"X-Xsrftoken": token},
            timeout=120,
        )
    assert answer.status_code == 400
    assert "session" in answer.text


def test_no_other_site_steers_a_page_that_lies_in_its_own(address: str) -> None:
    told = requests.get(f"{address}/_stcore/host-config", timeout=120).json()
    assert told["allowedOrigins"] == ["https://nobody.invalid"]
    assert not told["enableCustomParentMessages"]


def _wait_for(url: str, process: subprocess.Popen) -> None:
    """Until the page's server answers."""
    patient = Retry(total=9, backoff_factor=0.1, backoff_max=0.5)
    with requests.Session() as session:
        session.mount("https://", HTTPAdapter(max_retries=patient))
        while process.poll() is None:
            with suppress(requests.ConnectionError):
                assert session.get(url, timeout=120).status_code == 200
                return
    raise AssertionError("the page's server ended")
