"""Starting and stopping the hub on this machine."""

from collections.abc import Sequence

from coterie.home import Home
from coterie.processes import hold, start, stop
from network.gate import API
from network.hub import create_hub
from network.tls import trust_own_server


def start_hub(
    home: Home,
    host: str,
    port: int,
    *,
    foreground: bool = False,
    tls: bool = False,
    proxies: Sequence[str] = (),
) -> str:
    """Start the hub (in this process if `foreground`); gives its address.

    `tls` and `proxies` count at its first start, as host and port do.

    Raises:
        HubError, AlreadyRunning, ProcessError.
    """
    settings = create_hub(home.hub, host, port, tls=tls, proxies=proxies)
    reached = "127.0.0.1" if settings.host in ("0.0.0.0", "::") else settings.host
    url = f"{'https' if settings.tls else 'http'}://{reached}:{settings.port}"
    if settings.tls:
        trust_own_server(url, home.hub)
    if foreground:
        from network.hub import serve

        hold("hub", home.hub / "node.pid")
        serve(home.hub)
        return url
    start(
        "hub",
        ["-m", "network.hub", str(home.hub)],
        home.hub / "node.pid",
        home.hub / "node.log",
        settings.host,
        settings.port,
        f"{url}{API}/",
    )
    return url


def stop_hub(home: Home) -> bool:
    """Stop the hub; False if it wasn't running."""
    return stop("hub", home.hub / "node.pid")
