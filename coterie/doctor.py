"""What is weak about a node: seen from outside, as a stranger, and on its own machine.

Nothing here logs in or reads private data. A check that can't be made is a finding, not silence.
"""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from urllib.parse import urlsplit

import requests

from coterie.home import Home
from domains.confinement import ProbeFailed, probe
from domains.folder import DomainFolder
from network.answers import Answer, AnswerRefused, ask, no_password
from network.gate import API
from network.tls import CERTIFICATE, TlsError, days_left, is_local, secured

_STRANGER = "https://stranger.example"
_TIMEOUT_S = (5, 10)
_ENOUGH_DISK = 2**30
_SOON_DAYS = 30
_NEEDED_WALLS = frozenset({"network", "other files", "writing", "processes", "memory"})


class Verdict(StrEnum):
    GOOD = "good"
    WEAK = "weak"
    BAD = "bad"


@dataclass(frozen=True)
class Finding:
    """One check.

    Attributes:
        check: what was looked at.
        verdict: good; weak, where it depends on your surroundings; bad, to be mended first.
        detail: what was found and, unless good, what to do.
    """

    check: str
    verdict: Verdict
    detail: str


def examine_from_outside(url: str) -> list[Finding]:
    """What a stranger can do at a node's address, without an account."""
    stranger = _Stranger(url)
    if not stranger.reaches():
        return [Finding("answers", Verdict.BAD, f"Nothing answers at {url}. Start the node.")]
    return [
        _encrypted(url),
        *(
            Finding(check, Verdict.GOOD if closed else Verdict.BAD, detail)
            for check, closed, detail in stranger.attempts()
        ),
    ]


class _Stranger:
    """Sends what nobody should be able to send."""

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/")
        self._session = requests.Session()

    def reaches(self) -> bool:
        answer = self._ask("GET", "/")
        return answer is not None and answer.status == 200

    def attempts(self) -> Iterator[tuple[str, bool, str]]:
        """Each: what was tried, whether it is closed, what that means."""
        unsigned = self._ask("POST", "/api_call", b"\x00" * 64)
        yield (
            "unsigned calls",
            unsigned is not None and unsigned.status == 400,
            "Bytes are refused unless a member signed them (a stock Syft node reads them first).",
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
        yield ("other web pages", not self._lets_pages_in(), "No page of another site may call it.")

    def _lets_pages_in(self) -> bool:
        try:
            answer = secured(self._session, self._url).get(
                f"{self._url}{API}/",
                headers={"Origin": _STRANGER},
                timeout=_TIMEOUT_S,
                stream=True,
                allow_redirects=False,
                auth=no_password,
            )
        except requests.RequestException:
            return True
        return "access-control-allow-origin" in answer.headers

    def _ask(self, method: str, path: str, body: bytes = b"") -> Answer | None:
        try:
            return ask(self._session, method, f"{self._url}{API}{path}", body, timeout=_TIMEOUT_S)
        except (requests.RequestException, AnswerRefused):
            return None


def _encrypted(url: str) -> Finding:
    parts = urlsplit(url)
    if parts.scheme == "https":
        return Finding("encryption", Verdict.GOOD, "TLS.")
    if is_local(parts.hostname):
        return Finding("encryption", Verdict.GOOD, "Not encrypted, and not leaving this machine.")
    told = "Not encrypted: coterie domain init --tls, or put a TLS proxy before the node."
    return Finding("encryption", Verdict.BAD, told)


def examine_on_its_machine(home: Home, name: str) -> list[Finding]:
    """What only the node's own machine can show: files, keys, disk, the engine's walls.

    Raises:
        FolderError: no such domain here.
    """
    folder = home.domain(name)
    peers = folder.settings().peers
    first = folder.first_password.exists()
    together = home.owner_key(name).exists()
    free = shutil.disk_usage(folder.path).free
    return [
        _closed_files(folder),
        Finding(
            "first password",
            Verdict.WEAK if first else Verdict.GOOD,
            "The owner's first password still lies here until the node's first start."
            if first
            else "Only its hash is kept.",
        ),
        Finding(
            "owner's key",
            Verdict.WEAK if together else Verdict.GOOD,
            f"{home.owner_key(name)} lies on the node's machine. Keep it on the owner's."
            if together
            else "Not on this machine.",
        ),
        Finding(
            "partners",
            Verdict.GOOD if peers else Verdict.WEAK,
            f"Pinned: {', '.join(sorted(peers))}." if peers else "None: coterie domain pin --help",
        ),
        Finding(
            "disk",
            Verdict.GOOD if free >= _ENOUGH_DISK else Verdict.BAD,
            f"{free / 2**30:.1f} GiB free; the ledger needs room before anything can be released.",
        ),
        *_certificate(folder),
        *_walls(folder),
    ]


def _certificate(folder: DomainFolder) -> list[Finding]:
    settings = folder.settings()
    if not settings.tls and not settings.proxies:
        if is_local(settings.host):
            return []
        told = "Neither TLS nor a TLS proxy in domain.toml: nobody can log in from elsewhere."
        return [Finding("certificate", Verdict.BAD, told)]
    if not settings.tls and not (folder.path / CERTIFICATE).exists():
        return []
    try:
        days = days_left(folder.path)
    except TlsError as error:
        return [Finding("certificate", Verdict.BAD, str(error))]
    if days >= _SOON_DAYS:
        return [Finding("certificate", Verdict.GOOD, f"Holds for {days} days.")]
    told = f"Holds for {max(days, 0)} days. Renew it: coterie domain certificate --help"
    return [Finding("certificate", Verdict.BAD if days < 0 else Verdict.WEAK, told)]


def _closed_files(folder: DomainFolder) -> Finding:
    everything = [folder.path, *folder.path.rglob("*")]
    open_to_others = [path for path in everything if _is_reachable(path, folder.path)]
    if open_to_others:
        first = ", ".join(str(path) for path in open_to_others[:3])
        told = f"Others on this machine may read {first}: chmod -R go-rwx {folder.path}"
        return Finding("files", Verdict.BAD, told)
    return Finding("files", Verdict.GOOD, "Keys and data are the node's alone.")


def _is_reachable(path: Path, top: Path) -> bool:
    """Whether another user may read it, given that she may enter every folder above it."""
    within = [part for part in path.parents if top in (part, *part.parents)]
    closed = any(not part.stat().st_mode & 0o011 for part in within)
    return not closed and bool(path.stat().st_mode & 0o044)


def _walls(folder: DomainFolder) -> list[Finding]:
    try:
        walls = probe(folder.path / "node.key")
    except ProbeFailed as error:
        return [Finding("engine", Verdict.BAD, str(error))]
    return [
        Finding(
            f"engine: {wall.name}",
            Verdict.GOOD
            if wall.on
            else (Verdict.BAD if wall.name in _NEEDED_WALLS else Verdict.WEAK),
            wall.detail,
        )
        for wall in walls
    ]
