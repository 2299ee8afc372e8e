"""What the engine's process gives up before it meets a plan, with what the kernel offers.

Three walls that don't lean on each other: a user, network and set of capabilities of its own;
landlock (no file but the program's); seccomp (no sockets, no processes, no writing, no reach into
other processes). And limits on memory, CPU time, file size and processes. Sources: landlock(7),
seccomp(2), unshare(2), setrlimit(2). A wall that can't be put up is reported, with the reason.

Run as a program, it confines itself, tries to break out, and prints what came of it.
"""

import ctypes
import errno
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

MEMORY_LIMIT = 8 * 2**30
CPU_LIMIT_S = 24 * 3600
FILE_LIMIT = 2**24
_PROBE_TIMEOUT_S = 120
# Above every user that accounts are made for; one for each process, so that two engines can't
# signal or trace each other. 16-bit systems and small user namespaces refuse it.
_FIRST_USER = 1_879_048_192

_CLONE_NEWNET, _CLONE_NEWUSER, _CLONE_THREAD = 0x40000000, 0x10000000, 0x00010000
_PR_SET_NO_NEW_PRIVS, _PR_SET_DUMPABLE = 38, 4
_CAPABILITY_VERSION_3 = 0x20080522
_SECCOMP_SET_FILTER, _SECCOMP_ALL_THREADS = 1, 1
_ALLOW, _REFUSE, _KILL = 0x7FFF0000, 0x00050000, 0x80000000
_LOAD, _EQUAL, _ABOVE, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER_AT, _ARCHITECTURE_AT, _ARGUMENTS_AT = 0, 4, 16
_MACHINES = {"x86_64": (0, 0xC000003E, 317, 126), "aarch64": (1, 0xC00000B7, 277, 91)}

# System calls by their numbers on x86_64 and aarch64; None where there is no such call.
_NETWORK = (
    (41, 198),
    (42, 203),
    (43, 202),
    (44, 206),
    (45, 207),
    (46, 211),
    (47, 212),
    (49, 200),
    (50, 201),
    (53, 199),
    (288, 242),
    (299, 243),
    (307, 269),
)  # socket connect accept sendto recvfrom sendmsg recvmsg bind listen socketpair accept4 *mmsg
_PROCESSES = (
    (57, None), (58, None), (59, 221), (322, 281),  # fork vfork execve execveat
    (62, 129), (200, 130), (129, 138), (297, 240), (424, 424),  # kill tkill *sigqueueinfo pidfd
    (101, 117), (310, 270), (311, 271), (312, 272),  # ptrace process_vm_readv/writev kcmp
    (434, 434), (438, 438), (440, 440),  # pidfd_open pidfd_getfd process_madvise
    (29, 194), (30, 196), (31, 195), (64, 190), (68, 186), (240, 180),  # shm sem msg mq_open
)  # fmt: skip
_PRIVILEGES = (
    (105, 146), (106, 144), (113, 145), (114, 143), (117, 147), (119, 149), (116, 159),  # set*id
    (126, 91), (161, 51), (155, 41), (165, 40), (166, 39), (272, 97), (308, 268),  # mounts, spaces
    (428, 428), (429, 429), (430, 430), (431, 431), (432, 432), (442, 442),  # the new mount calls
    (175, 105), (313, 273), (176, 106), (246, 104), (320, 294), (169, 142),  # modules kexec reboot
    (321, 280), (298, 241), (323, 282), (425, 425), (426, 426), (427, 427),  # bpf perf uffd uring
    (248, 217), (249, 218), (250, 219), (303, 264), (304, 265), (135, 92),  # keys handles persona
)  # fmt: skip
_WRITING = (
    (85, None), (76, 45), (82, None), (264, 38), (316, 276), (87, None), (263, 35),  # files
    (83, None), (258, 34), (84, None), (86, None), (265, 37), (88, None), (266, 36),  # folders
    (133, None), (259, 33), (90, None), (91, 52), (268, 53), (452, 452),  # mknod chmod
    (92, None), (93, 55), (94, None), (260, 54),  # chown
    (188, 5), (189, 6), (190, 7), (197, 14), (198, 15), (199, 16),  # set and remove xattr
)  # fmt: skip
_ABSENT = ((435, 435), (437, 437))  # clone3 openat2: their flags lie where a filter can't look


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
    machine = _MACHINES.get(platform.machine())
    if machine is None or not called(libc, "syscall", machine[3], header, bytes(24)):
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
    machine = platform.machine()
    if machine not in _MACHINES or sys.byteorder != "little":
        return Protection("seccomp", False, f"no filter was written for {machine}")
    program = _filter(machine, os.getpid())
    code = ctypes.create_string_buffer(program, len(program))
    # struct sock_fprog: a 16-bit length and a pointer, aligned as C does.
    asked = struct.pack("@HP", len(program) // 8, ctypes.addressof(code))
    number = _MACHINES[machine][2]
    if not called(libc, "syscall", number, _SECCOMP_SET_FILTER, _SECCOMP_ALL_THREADS, asked):
        return Protection("seccomp", False, f"seccomp refused: {why()}")
    return Protection("seccomp", True, "seccomp: no sockets, processes, writing or privileges")


def _filter(machine: str, process: int) -> bytes:
    """A classic BPF program (linux/seccomp.h) that refuses what the tables name."""
    column, architecture, _, _ = _MACHINES[machine]
    refuse, absent = _REFUSE | errno.EPERM, _REFUSE | errno.ENOSYS
    steps = [(_LOAD, 0, 0, _ARCHITECTURE_AT), (_EQUAL, 1, 0, architecture), (_RETURN, 0, 0, _KILL)]
    steps += [(_LOAD, 0, 0, _NUMBER_AT)]
    if machine == "x86_64":
        # Its second, 32-bit set of numbers would slip through the tables.
        steps += [(_ABOVE, 0, 1, 0x40000000), (_RETURN, 0, 0, _KILL)]
    for answer, calls in (
        (refuse, (*_NETWORK, *_PROCESSES, *_PRIVILEGES, *_WRITING)),
        (absent, _ABSENT),
    ):
        for call in calls:
            number = call[column]
            if number is not None:
                steps += [(_EQUAL, 0, 1, number), (_RETURN, 0, 0, answer)]
    to_write = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
    opening = [(2, 1), (257, 2)] if machine == "x86_64" else [(56, 2)]
    for number, argument in opening:
        steps += _unless(number, argument, (_ANY_BIT, 0, 1, to_write), refuse)
    clone, signal_thread = ((56, 234), (220, 131))[column]
    steps += _unless(clone, 0, (_ANY_BIT, 1, 0, _CLONE_THREAD), refuse)
    steps += _unless(signal_thread, 0, (_EQUAL, 1, 0, process), refuse)
    steps += [(_RETURN, 0, 0, _ALLOW)]
    return b"".join(struct.pack("<HBBI", *step) for step in steps)


def _unless(
    number: int, argument: int, test: tuple[int, int, int, int], answer: int
) -> list[tuple[int, int, int, int]]:
    """Refuse this call where `test` of the low half of its argument falls on the next step."""
    return [
        (_EQUAL, 0, 4, number),
        (_LOAD, 0, 0, _ARGUMENTS_AT + 8 * argument),
        test,
        (_RETURN, 0, 0, answer),
        (_RETURN, 0, 0, _ALLOW),
    ]


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
    attempts: dict[str, Callable[[], object]] = {
        "network": _connect,
        "other files": lambda: open(secret, "rb").close(),
        "writing": lambda: open(f"{secret}.probe", "wb").close(),
        "processes": _fork,
    }
    broken = {name for name, attempt in attempts.items() if _gives_way(attempt)}
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
