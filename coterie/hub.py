"""Starting and stopping the hub on this machine."""

from coterie.home import Home
from coterie.processes import hold, start, stop
from network.gate import API
from network.hub import create_hub


def start_hub(home: Home, host: str, port: int, *, foreground: bool = False) -> str:
    """Start the hub (in this process if `foreground`); gives its address.

    Raises:
        HubError, AlreadyRunning, ProcessError.
    """
    settings = create_hub(home.hub, host, port)
    url = f"http://{settings.host}:{settings.port}"
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
        f"{API}/",
    )
    return url


def stop_hub(home: Home) -> bool:
    """Stop the hub; False if it wasn't running."""
    return stop("hub", home.hub / "node.pid")
