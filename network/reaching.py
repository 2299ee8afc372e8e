"""Why a server wasn't reached, in words: the errors of TLS and HTTP say it in their own."""

import ssl
from collections.abc import Iterator
from http.client import BadStatusLine, RemoteDisconnected
from socket import gaierror

_HUNG_UP = "it hung up; it may want https://, or a certificate of yours that it lists"


def why_unreached(error: Exception) -> str:
    """What came between, for an error message.

    A server that isn't content with a client's certificate may hang up without a word: under TLS
    1.3 the handshake is over for the client before it is looked at (RFC 8446, section 4.4.2.4).
    """
    for cause in _causes(error):
        match cause:
            case ssl.SSLCertVerificationError():
                return f"its certificate isn't taken: {cause.verify_message.rstrip('.')}"
            case RemoteDisconnected() | ConnectionResetError() | BrokenPipeError():
                return _HUNG_UP
            case ssl.SSLEOFError():
                return _HUNG_UP
            case ssl.SSLError() if "ALERT" in (cause.reason or ""):
                return _HUNG_UP
            case ssl.SSLError():
                return "it speaks no TLS that is taken here"
            case ConnectionRefusedError():
                return "nothing listens there"
            case gaierror():
                return "no machine has that name"
            case BadStatusLine():
                return "it speaks no HTTP"
    return type(error).__name__


def _causes(error: BaseException) -> Iterator[BaseException]:
    """An error and those in it, which requests and urllib3 keep in several places."""
    seen: set[int] = set()
    waiting: list[object] = [error]
    while waiting:
        found = waiting.pop(0)
        if isinstance(found, BaseException) and id(found) not in seen:
            seen.add(id(found))
            yield found
            waiting += [getattr(found, "reason", None), found.__cause__, found.__context__]
            waiting += found.args
