"""What is weak about a node, seen from outside: by a stranger, who has no account.

A check that can't be made is a finding, not silence.
"""

import socket
import ssl
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

import requests
from cryptography import x509

from coterie.finding import Finding, Verdict, about_days
from network.answers import Answer, AnswerRefused, ask, no_password, node_key_in
from network.gate import API
from network.reaching import why_unreached
from network.replay import MAX_AGE_S
from network.tls import is_local, secured

_STRANGER = "https://stranger.example"
_TIMEOUT_S = (5, 30)
_CLOCK_S = 30
_HEADERS = ("x-content-type-options", "content-security-policy", "cache-control")


def examine_from_outside(url: str) -> list[Finding]:
    """What a stranger can do at a node's address, without an account."""
    stranger = _Stranger(url.rstrip("/"))
    why = stranger.why_unreached()
    if why is not None:
        told = f"{url} isn't reached: {why}. Is the node up? A certificate that no public authority"
        return [Finding("answers", Verdict.BAD, f"{told} signed is given with --certificate.")]
    return [
        *_encrypted(url),
        *(
            Finding(check, Verdict.GOOD if closed else Verdict.BAD, detail)
            for check, closed, detail in stranger.attempts()
        ),
        *stranger.surroundings(),
    ]


class _Stranger:
    """Sends what nobody should be able to send."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._session = requests.Session()

    def why_unreached(self) -> str | None:
        try:
            answer = ask(self._session, "GET", f"{self._url}{API}/", timeout=_TIMEOUT_S)
        except (requests.RequestException, AnswerRefused) as error:
            return why_unreached(error)
        return None if answer.status == 200 else f"it answers {answer.status}"

    def attempts(self) -> Iterator[tuple[str, bool, str]]:
        """Each: what was tried, whether it is closed, what that means."""
        unsigned = self._ask("POST", "/api_call", b"\x00" * 64)
        yield (
            "unsigned calls",
            unsigned is not None and unsigned.status == 400,
            "Bytes are refused unless a member signed them (a stock Syft node reads them first).",
        )
        about = self._ask("GET", "/metadata")
        yield (
            "signed answers",
            about is not None and about.is_from(node_key_in(about.content)),
            "Answers come as the node signed them: nothing in between wrote or changed them.",
        )
        for path in ("register", "reset_password", "forgot_password"):
            answer = self._ask("POST", f"/{path}", b"{}")
            yield (
                path.replace("_", " "),
                answer is not None and answer.status in (404, 405),
                "Accounts are made by the owner's invitation only.",
            )
        for path in ("/stream/x/y/", "/blob/x", "/docs"):
            answer = self._ask("GET", path)
            yield (
                f"GET {path}",
                answer is not None and answer.status in (400, 404, 405),
                "The route is not served.",
            )
        listed = self._ask("GET", f"/api?verify_key={'0' * 64}&communication_protocol=dev")
        yield (
            "methods by another's key",
            listed is not None and 400 <= listed.status < 500,
            "Only members are told which methods there are.",
        )
        yield (
            "other web pages",
            not (self._lets_pages_in("GET") or self._lets_pages_in("OPTIONS")),
            "No page of another site may call it.",
        )

    def surroundings(self) -> Iterator[Finding]:
        """Headers and clock, as they come through whatever stands before the node."""
        headers = self._headers("GET", {}) or {}
        missing = [name for name in _HEADERS if name not in headers]
        yield Finding(
            "headers",
            Verdict.WEAK if missing else Verdict.GOOD,
            f"Missing: {', '.join(missing)}. Let the proxy pass what the node says."
            if missing
            else "Browsers are told not to guess, frame or keep what it answers.",
        )
        yield _clock(headers.get("date", ""))

    def _lets_pages_in(self, method: str) -> bool:
        sent = {"Origin": _STRANGER, "Access-Control-Request-Method": "POST"}
        headers = self._headers(method, sent)
        return headers is None or "access-control-allow-origin" in headers

    def _headers(self, method: str, sent: Mapping[str, str]) -> Mapping[str, str] | None:
        try:
            with secured(self._session, self._url).request(
                method,
                f"{self._url}{API}/",
                headers=dict(sent),
                timeout=_TIMEOUT_S,
                stream=True,
                allow_redirects=False,
                auth=no_password,
            ) as answer:
                return answer.headers
        except requests.RequestException:
            return None

    def _ask(self, method: str, path: str, body: bytes = b"") -> Answer | None:
        try:
            return ask(self._session, method, f"{self._url}{API}{path}", body, timeout=_TIMEOUT_S)
        except (requests.RequestException, AnswerRefused):
            return None


def _clock(date: str) -> Finding:
    """A node whose clock is off refuses calls as too old, and dates its ledger wrongly."""
    try:
        off = abs(parsedate_to_datetime(date).timestamp() - time.time())
    except (TypeError, ValueError):
        return Finding("clock", Verdict.WEAK, "It doesn't say what time it is.")
    if off <= _CLOCK_S:
        return Finding("clock", Verdict.GOOD, "As here, within half a minute.")
    told = f"{off:.0f} s off from this machine's: set both by NTP. Calls fail beyond {MAX_AGE_S} s."
    return Finding("clock", Verdict.BAD if off > MAX_AGE_S else Verdict.WEAK, told)


def _encrypted(url: str) -> Iterator[Finding]:
    parts = urlsplit(url)
    if parts.scheme == "https":
        yield from _tls(str(parts.hostname), parts.port or 443)
    elif is_local(parts.hostname):
        told = "Not encrypted, and not leaving this machine."
        yield Finding("encryption", Verdict.GOOD, told)
    else:
        told = "Not encrypted: coterie domain init --tls, or put a TLS proxy before the node."
        yield Finding("encryption", Verdict.BAD, told)


def _tls(host: str, port: int) -> Iterator[Finding]:
    if _shown(host, port, ssl.TLSVersion.TLSv1_1) is not None:
        told = "TLS 1.1 or older is spoken: allow TLS 1.3 alone where TLS ends."
        yield Finding("encryption", Verdict.BAD, told)
    elif _shown(host, port, ssl.TLSVersion.TLSv1_2) is not None:
        told = "TLS 1.2 is spoken too: allow TLS 1.3 alone where TLS ends."
        yield Finding("encryption", Verdict.WEAK, told)
    else:
        yield Finding("encryption", Verdict.GOOD, "TLS 1.3, and nothing older.")
    shown = _shown(host, port, ssl.TLSVersion.TLSv1_3)
    if shown:
        until = x509.load_der_x509_certificate(shown).not_valid_after_utc
        yield about_days("certificate shown", (until - datetime.now(UTC)).days)
    else:
        yield Finding("certificate shown", Verdict.WEAK, "It couldn't be read.")


def _shown(host: str, port: int, newest: ssl.TLSVersion) -> bytes | None:
    """The certificate that a server shows to who speaks nothing newer; None if it refuses.

    Nobody is trusted by this, and nothing is sent.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        context.set_ciphers("ALL:@SECLEVEL=0")
        context.minimum_version, context.maximum_version = ssl.TLSVersion.TLSv1, newest
        with (
            socket.create_connection((host, port), timeout=_TIMEOUT_S[0]) as line,
            context.wrap_socket(line, server_hostname=host) as secure,
        ):
            return secure.getpeercert(binary_form=True) or b""
    except (OSError, ValueError):
        return None
