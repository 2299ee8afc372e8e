"""A health check for containers: python -m network.alive PORT. Ends with 1 if nothing answers.

The standard library alone, since it runs every few seconds.
"""

import os
import ssl
import sys
import urllib.request
from contextlib import suppress
from pathlib import Path

from network.secrets import secret_file


def is_alive(port: int) -> bool:
    """Whether a node or hub on this machine answers, with TLS or without."""
    # Nothing is sent, and nothing believed but that somebody answers: any certificate will do.
    anyone = ssl.create_default_context()
    anyone.check_hostname, anyone.verify_mode = False, ssl.CERT_NONE
    _show_own(anyone)
    for scheme in ("https", "http"):
        with suppress(OSError, ValueError):
            url = f"{scheme}://127.0.0.1:{port}/healthz"
            with urllib.request.urlopen(url, timeout=2, context=anyone) as answer:
                return bool(answer.status == 200)
    return False


def _show_own(context: ssl.SSLContext) -> None:
    """Show the server's own certificate if it takes nobody without one (`clients.pem`)."""
    home = Path(os.environ.get("COTERIE_HOME", Path.home() / ".coterie"))
    for folder in (home / "hub", *home.glob("domains/*")):
        if secret_file(folder, "clients.pem").exists():
            with suppress(OSError, ValueError):
                own = secret_file(folder, "tls.pem"), secret_file(folder, "tls.key")
                context.load_cert_chain(*own)


if __name__ == "__main__":
    sys.exit(0 if is_alive(int(sys.argv[1])) else 1)
