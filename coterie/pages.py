"""How a partner's dashboard is started: Streamlit on our page, with the node's address."""

from coterie.home import Home
from coterie.partners import url_of


def dashboard_command(home: Home, domain: str, url: str | None, host: str, port: int) -> list[str]:
    """Arguments after the Python interpreter that serve the dashboard of one domain.

    No credential is among them: people sign in on the page.
    """
    from importlib.util import find_spec

    specification = find_spec("dashboard.app")
    assert specification is not None
    assert specification.origin is not None
    pinned: list[str] = []
    if url is None:
        folder = home.domain(domain)
        url = url_of(folder.settings())
        pinned = ["--node-key", folder.node_key().public_key().public_bytes_raw().hex()]
    certificate = home.certificate(domain)
    if url.startswith("https://") and certificate.exists():
        pinned += ["--certificate", str(certificate)]
    return [
        "-m", "streamlit", "run", specification.origin,
        "--server.port", str(port), "--server.address", host,
        "--server.headless", "true", "--browser.gatherUsageStats", "false",
        "--server.fileWatcherType", "none", "--client.toolbarMode", "minimal",
        "--", "--domain", domain, "--url", url, *pinned,
    ]  # fmt: skip
