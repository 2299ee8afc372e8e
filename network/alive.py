"""A health check for containers: python -m network.alive PORT. Ends with 1 if nothing answers.

The standard library alone, since it runs every few seconds.
"""

import ssl
import sys
import urllib.request
from contextlib import suppress


def is_alive(port: int) -> bool:
    """Whether a node or hub on this machine answers, with TLS or without."""
    # Nothing is sent, and nothing believed but that somebody answers: any certificate will do.
    anyone = ssl.create_default_context()
    anyone.check_hostname, anyone.verify_mode = False, ssl.CERT_NONE
    for scheme in ("https", "http"):
        with suppress(OSError, ValueError):
            url = f"{scheme}://127.0.0.1:{port}/healthz"
            with urllib.request.urlopen(url, timeout=2, context=anyone) as answer:
                return bool(answer.status == 200)
    return False


if __name__ == "__main__":
    sys.exit(0 if is_alive(int(sys.argv[1])) else 1)
