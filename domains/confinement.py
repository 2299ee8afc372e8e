"""What the engine's process gives up before it meets a plan, with what the kernel offers.

Three walls that don't lean on each other: a user, network and set of capabilities of its own;
landlock (no file but the program's); seccomp (no sockets, no processes, no writing, no reach into
other processes: `domains.seccomp`). And limits on memory, CPU time, file size and processes.
Sources: landlock(7), unshare(2), setrlimit(2). A wall that can't be put up is reported, with the
reason.

Run as a program, it confines itself, tries to break out, and prints what came of it.
"""

import ctypes
import json
import os
import platform
import resource
import socket
import struct
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from domains.landlock import LandlockRefused, Open, called, close_all_but, why
from domains.seccomp import SeccompRefused, refuse_calls

MEMORY_LIMIT = 8 * 2**30
CPU_LIMIT_S = 24 * 3600
FILE_LIMIT = 2**24
_PROBE_TIMEOUT_S = 120
# Above every user that accounts are made for; one for each process, so that two engines can't
# signal or trace each other. 16-bit systems and small user namespaces refuse it.
_FIRST_USER = 1_879_048_192

_CLONE_NEWNET, _CLONE_NEWUSER = 0x40000000, 0x10000000
_PR_SET_NO_NEW_PRIVS, _PR_SET_DUMPABLE = 38, 4
_CAPABILITY_VERSION_3 = 0x20080522
_CAPSET = {"x86_64": 126, "aarch64": 91}


@dataclass(frozen=True)
class Protection:
    """One wall of the enclosure.

    Attributes:
        name: what it keeps the engine from, e.g. 'network'.
        on: whether it stands here.
        detail: by which means; if it doesn't stand, why, and what would put it up.
    """

    name: str
    on: bool
    detail: str


class ProbeFailed(RuntimeError):
    """The probe didn't run, so nothing can be said of this machine's protections."""


def confine(memory: int = MEMORY_LIMIT, cpu_s: int = CPU_LIMIT_S) -> list[Protection]:
    """Lock this process down for good, and say what was possible.

    Call it with one thread, after everything private was opened that will be read.

    Args:
        memory: bytes of address space. cpu_s: seconds of CPU time, from its start.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    # Opened while this is still a user who may look: Python may lie in somebody's home.
    code = [os.open(folder, os.O_PATH | os.O_CLOEXEC) for folder in code_folders()]
    limits = [
        _limit("memory", resource.RLIMIT_AS, memory, f"{memory >> 30} GiB"),
        _limit("CPU time", resource.RLIMIT_CPU, cpu_s, f"{cpu_s} s"),
        _limit("file size", resource.RLIMIT_FSIZE, FILE_LIMIT, f"{FILE_LIMIT >> 20} MiB"),
        _limit("core dumps", resource.RLIMIT_CORE, 0, "none"),
    ]
    alone = _network_of_its_own(libc)
    own_user = _user_of_its_own()
    few = _limit("processes", resource.RLIMIT_NPROC, 0, "no new one for this user")
    no_privileges = drop_privileges(libc)
    files = _no_files(libc, code)
    for opened in code:
        os.close(opened)
    filtered = _no_calls(libc)
    return [
        *limits,
        own_user,
        no_privileges,
        _either("network", filtered, alone),
        _either("other files", files, own_user),
        _either("writing", filtered, files),
        _either("processes", filtered, few if own_user.on else None),
        filtered,
        files,
    ]


def _either(name: str, *walls: Protection | None) -> Protection:
    """On if one of several walls stands; each alone would do."""
    standing = [wall for wall in walls if wall is not None and wall.on]
    found = standing or [wall for wall in walls if wall is not None]
    return Protection(name, bool(standing), "; ".join(wall.detail for wall in found))


def _limit(name: str, kind: int, bound: int, told: str) -> Protection:
    try:
        _, hard = resource.getrlimit(kind)
        lowest = bound if hard == resource.RLIM_INFINITY else min(bound, hard)
        resource.setrlimit(kind, (lowest, lowest))
    except (OSError, ValueError) as error:
        return Protection(name, False, f"setrlimit refused: {error}")
    return Protection(name, True, told)


def _network_of_its_own(libc: ctypes.CDLL) -> Protection:
    for flags, told in (
        (_CLONE_NEWNET, "a network namespace without interfaces"),
        (_CLONE_NEWUSER | _CLONE_NEWNET, "a network namespace, by way of a user namespace"),
    ):
        if called(libc, "unshare", flags):
            return Protection("network namespace", True, told)
    return Protection("network namespace", False, f"unshare refused: {why()}")


def _user_of_its_own() -> Protection:
    if os.geteuid() != 0:
        return Protection(
            "own user", False, "the node doesn't run as root, so its engine shares its user"
        )
    closed = _closed_to_others(code_folders())
    if closed is not None:
        return Protection("own user", False, f"another user couldn't read the program: {closed}")
    user = _FIRST_USER + os.getpid()
    try:
        os.setgroups([])
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)
    except OSError as error:
        return Protection("own user", False, f"setresuid refused: {error.strerror}")
    return Protection("own user", True, "a user number of its own, of no group")


def _closed_to_others(folders: Sequence[Path]) -> Path | None:
    """The first folder on the way to these that only some users may enter."""
    ways = (way for folder in folders for way in (folder, *folder.parents))
    return next((way for way in ways if not way.stat().st_mode & 0o001), None)


def drop_privileges(libc: ctypes.CDLL) -> Protection:
    """No capabilities, and none to be gained, by this process or what it becomes."""
    called(libc, "prctl", _PR_SET_DUMPABLE, 0, 0, 0, 0)
    header = struct.pack("<Ii", _CAPABILITY_VERSION_3, 0)
    number = _CAPSET.get(platform.machine())
    if number is None or not called(libc, "syscall", number, header, bytes(24)):
        return Protection("privileges", False, f"capabilities can't be dropped: {why()}")
    if not called(libc, "prctl", _PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        return Protection("privileges", False, f"prctl refused: {why()}")
    return Protection("privileges", True, "no capabilities, and no way to gain any")


def _no_files(libc: ctypes.CDLL, code: Sequence[int]) -> Protection:
    """Landlock: what lies below the open folders `code` can be read, and no other file."""
    try:
        version = close_all_but(libc, Open(read=code))
    except LandlockRefused as error:
        return Protection("landlock", False, str(error))
    return Protection(
        "landlock", True, f"landlock, version {version}: no file but the program's own"
    )


def code_folders() -> list[Path]:
    """Where Python, its packages and the rooms that the engine imports lie; no data, no keys."""
    known = sysconfig.get_paths()
    rooms = [
        Path(__file__).parent,
        *(Path(__file__).parents[1] / r for r in ("policies", "network")),
    ]
    libraries = [Path(known[name]) for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    return sorted({path.resolve() for path in [*rooms, *libraries] if path.is_dir()})


def _no_calls(libc: ctypes.CDLL) -> Protection:
    try:
        refuse_calls(libc)
    except SeccompRefused as error:
        return Protection("seccomp", False, str(error))
    told = "seccomp: no sockets, processes, writing or privileges"
    return Protection("seccomp", True, told)


def probe(secret: Path) -> list[Protection]:
    """Confine a process like the engine's and let it try; what gave way is off, whatever it says.

    Args:
        secret: a file of the node's, which the process must not be able to read.

    Raises:
        ProbeFailed: the process ended without an answer.
    """
    try:
        answer = subprocess.run(
            [sys.executable, "-m", "domains.confinement", str(secret)],
            capture_output=True,
            env=clean_environment(),
            timeout=_PROBE_TIMEOUT_S,
            check=True,
        )
        return [Protection(**each) for each in json.loads(answer.stdout)]
    except (OSError, ValueError, TypeError, subprocess.SubprocessError) as error:
        raise ProbeFailed(
            f"The enclosure's probe did not answer ({type(error).__name__}). Run it by hand: "
            f"{sys.executable} -m domains.confinement {secret}"
        ) from None


def clean_environment() -> dict[str, str]:
    """The little of this process's environment that an enclosed one needs; no keys."""
    kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
    return {
        **kept,
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def _connect() -> None:
    with socket.socket() as line:
        line.settimeout(2)
        line.connect(("127.0.0.1", 9))


def _fork() -> None:
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)


def _gives_way(attempt: Callable[[], object]) -> bool:
    """Whether the attempt gets past the walls. A refused connection did leave the process."""
    try:
        attempt()
    except ConnectionRefusedError:
        return True
    except OSError:
        return False
    return True


def tried(found: Sequence[Protection], secret: str) -> list[Protection]:
    """The walls as they stood when this process ran against each; `secret` is a file to read."""
    attempts: list[tuple[str, Callable[[], object]]] = [
        ("network", _connect),
        ("other files", lambda: open(secret, "rb").close()),
        ("writing", lambda: open(f"{secret}.probe", "wb").close()),
        ("processes", _fork),
        ("processes", lambda: resource.prlimit(os.getppid(), resource.RLIMIT_CORE)),
    ]
    broken = {name for name, attempt in attempts if _gives_way(attempt)}
    return [
        Protection(each.name, False, f"tried, and it gave way ({each.detail})")
        if each.name in broken
        else each
        for each in found
    ]


def main() -> None:
    found = tried(confine(), sys.argv[1])
    print(json.dumps([asdict(each) for each in found]))


if __name__ == "__main__":
    main()
