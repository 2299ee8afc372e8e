"""What is weak about a node on its own machine: files, keys, disk, the engine's walls.

Nothing here logs in or reads private data. A check that can't be made is a finding, not silence.
"""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from coterie.finding import Finding, Verdict, about_days
from coterie.home import Home
from domains.confinement import ProbeFailed, probe
from domains.folder import DomainFolder
from network.secrets import SECRETS
from network.tls import CERTIFICATE, TlsError, days_left, is_local

_ENOUGH_DISK = 2**30
_NEEDED_WALLS = frozenset({"network", "other files", "writing", "processes", "memory"})


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
        *_closed_secrets(home, name),
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
    return [about_days("certificate", days)]


def _closed_files(folder: DomainFolder) -> Finding:
    everything = [folder.path, *folder.path.rglob("*")]
    open_to_others = [path for path in everything if _is_reachable(path, folder.path)]
    if open_to_others:
        first = ", ".join(str(path) for path in open_to_others[:3])
        told = f"Others on this machine may read {first}: chmod -R go-rwx {folder.path}"
        return Finding("files", Verdict.BAD, told)
    return Finding("files", Verdict.GOOD, "Keys and data are the node's alone.")


def _closed_secrets(home: Home, name: str) -> Iterator[Finding]:
    """The owner's files and the directory of secrets, which aren't in the node's folder."""
    given = os.environ.get(SECRETS)
    places = {"owner's files": home.owner_key(name).parent}
    if given:
        places["secrets"] = Path(given)
    for check, place in places.items():
        if not place.is_dir():
            continue
        open_to_others = [
            path
            for path in place.rglob("*")
            if path.is_file() and path.stat().st_mode & 0o004 and place.stat().st_mode & 0o001
        ]
        first = ", ".join(map(str, open_to_others[:3]))
        told = f"Others on this machine may read {first}: chmod -R o-rwx {place}"
        yield (
            Finding(check, Verdict.BAD, told)
            if open_to_others
            else Finding(check, Verdict.GOOD, f"{place} is closed to others.")
        )


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
