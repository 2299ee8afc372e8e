"""How a dashboard is started: Streamlit on our page, with the address of a node or of the hub."""

from dataclasses import dataclass
from pathlib import Path

from coterie.addresses import url_of
from coterie.home import Home

_LIGHT = {"primaryColor": "#1f6f6b", "backgroundColor": "#ffffff", "textColor": "#0b1118",
          "secondaryBackgroundColor": "#f2f5f6", "redTextColor": "#a01722",
          "orangeTextColor": "#8a4300", "yellowTextColor": "#6b5000", "greenTextColor": "#12602f",
          "blueTextColor": "#0b53a0"}  # fmt: skip
_DARK = {"primaryColor": "#5fb8b0", "backgroundColor": "#12181d", "textColor": "#e6ebee",
         "secondaryBackgroundColor": "#1c252c"}  # fmt: skip
_CHARTS = '["#3f7fbf", "#c07f18", "#2f8f7f", "#b4552f", "#8a6fc0", "#7b868e"]'
"""Colours of a chart's series: 3 to 1 against light and dark, and no red beside a green."""
_NOBODY = "https://nobody.invalid"
"""In place of the sites of Streamlit's makers, which may steer a page that lies in theirs."""
_HEADINGS = '["2.25rem", "1.6rem"]'
"""Sizes of a page's title and of its sections'."""


@dataclass(frozen=True)
class Place:
    """Where the pages are served.

    Attributes:
        host, port: address of the page's own server.
        base_path: path prefix below which a proxy shows it, such as 'coterie/north'.
        certificate, key: files (PEM) for it to serve TLS itself; None: http, for a proxy or
            a browser on the same machine.
    """

    host: str = "127.0.0.1"
    port: int = 8501
    base_path: str = ""
    certificate: Path | None = None
    key: Path | None = None

    @property
    def address(self) -> str:
        scheme = "http" if self.certificate is None else "https"
        path = self.base_path.strip("/")
        return f"{scheme}://{self.host}:{self.port}" + (f"/{path}" if path else "")

    def flags(self) -> list[str]:
        """Streamlit's options for it. Its checks of origin and forged requests stay on."""
        flags = ["--server.port", str(self.port), "--server.address", self.host]
        if self.base_path.strip("/"):
            flags += ["--server.baseUrlPath", self.base_path.strip("/")]
        if self.certificate is not None and self.key is not None:
            flags += ["--server.sslCertFile", str(self.certificate)]
            flags += ["--server.sslKeyFile", str(self.key)]
        return flags


def dashboard_command(home: Home, domain: str, url: str | None, place: Place) -> list[str]:
    """Arguments after the Python interpreter that serve the dashboard of one domain.

    No credential is among them: people sign in on the page.
    """
    pinned: list[str] = []
    if url is None:
        folder = home.domain(domain)
        url = url_of(folder.settings())
        pinned = ["--node-key", folder.node_key().public_key().public_bytes_raw().hex()]
    certificate = home.certificate(domain)
    if url.startswith("https://") and certificate.exists():
        pinned += ["--certificate", str(certificate)]
    return [*_streamlit(place), "--domain", domain, "--url", url, *pinned]


def hub_dashboard_command(
    home: Home, hub: str, hub_certificate: Path | None, place: Place, keys: Path | None = None
) -> list[str]:
    """Arguments after the Python interpreter that serve the dashboard of the hub's directory.

    The certificates of HOME/certificates are taken as those of the nodes of these names, and the
    runs of HOME/scientist/runs are shown to the scientist whose plans they are. With `keys`, only
    domains whose node keys are as in that file are offered.
    """
    options = ["--hub", hub, "--certificates", str(home.certificates), "--runs", str(home.runs)]
    if hub_certificate is not None:
        options += ["--hub-certificate", str(hub_certificate)]
    if keys is not None:
        options += ["--keys", str(keys)]
    return [*_streamlit(place), *options]


def _streamlit(place: Place) -> list[str]:
    from importlib.util import find_spec

    specification = find_spec("dashboard.app")
    assert specification is not None
    assert specification.origin is not None
    page = Path(specification.origin).parent / "entry" / "page.py"
    colours = [
        part
        for theme, values in (("light", _LIGHT), ("dark", _DARK))
        for name, value in values.items()
        for part in (f"--theme.{theme}.{name}", value)
    ]
    return [
        "-m", "streamlit", "run", str(page), *place.flags(),
        "--server.headless", "true", "--browser.gatherUsageStats", "false",
        "--server.fileWatcherType", "none", "--client.toolbarMode", "minimal",
        "--client.showErrorDetails", "none", "--client.allowedOrigins", _NOBODY,
        "--server.maxUploadSize", "1", *colours,
        "--theme.headingFontSizes", _HEADINGS, "--theme.chartCategoricalColors", _CHARTS, "--",
    ]  # fmt: skip
