"""Landlock: the files and TCP ports that a process can still reach, and whatever it becomes.

Sources: landlock(7), linux/landlock.h. What a kernel's version doesn't know stays open, and the
answer says which version it is.
"""

import ctypes
import errno
import os
import stat
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

_CREATE, _ADD, _RESTRICT = 444, 445, 446
_PATH, _PORT = 1, 2
_READ = 0b1100 | 0b1  # execute, read_file, read_dir
_ON_FILES = 0b111 | 1 << 14 | 1 << 15  # execute, write_file, read_file, truncate, ioctl
_LISTEN, _CONNECT = 1, 2


class LandlockRefused(OSError):
    """It isn't in use here, or refused; nothing is closed."""


@dataclass(frozen=True)
class Open:
    """What stays open.

    Attributes:
        read: open files and folders (`os.O_PATH` is enough): what lies below may be read and run.
        write: the same, of what may be written too.
        listen, connect: TCP ports, from the kernel's fourth version on.
    """

    read: Sequence[int]
    write: Sequence[int] = ()
    listen: Sequence[int] = ()
    connect: Sequence[int] = ()


def close_all_but(libc: ctypes.CDLL, allowed: Open) -> int:
    """Close everything else to this process for good; gives landlock's version.

    Raises:
        LandlockRefused: see there.
    """
    threads = len(os.listdir("/proc/self/task")) if os.path.isdir("/proc/self/task") else 0
    if threads != 1:
        raise LandlockRefused(f"landlock binds one thread, and there are {threads}")
    version = libc.syscall(_CREATE, None, 0, 1)
    if version < 1:
        raise LandlockRefused(f"this kernel has no landlock in use ({why()})")
    everything = (1 << {1: 13, 2: 14, 3: 15, 4: 15}.get(version, 16)) - 1
    ports = 0b11 if version >= 4 else 0
    scopes = 0b11 if version >= 6 else 0
    asked = struct.pack("<QQQ", everything, ports, scopes)
    rules = libc.syscall(_CREATE, asked, 8 * (1 + (version >= 4) + (version >= 6)), 0)
    if rules < 0:
        raise LandlockRefused(f"landlock refused: {why()}")
    try:
        for kind, rule in _rules(allowed, everything, bool(ports)):
            if not called(libc, "syscall", _ADD, rules, kind, rule, 0):
                raise LandlockRefused(f"landlock refused a rule: {why()}")
        if not called(libc, "syscall", _RESTRICT, rules, 0):
            raise LandlockRefused(f"landlock refused: {why()}")
    finally:
        os.close(rules)
    return int(version)


def _rules(allowed: Open, everything: int, ports: bool) -> Iterable[tuple[int, bytes]]:
    for opened, rights in (
        *((each, _READ) for each in allowed.read),
        *((each, everything) for each in allowed.write),
    ):
        folder = stat.S_ISDIR(os.fstat(opened).st_mode)
        yield _PATH, struct.pack("<Qi", rights & everything & (-1 if folder else _ON_FILES), opened)
    if ports:
        for numbers, right in ((allowed.listen, _LISTEN), (allowed.connect, _CONNECT)):
            for number in numbers:
                yield _PORT, struct.pack("<QQ", right, number)


def called(libc: ctypes.CDLL, name: str, *arguments: int | bytes | None) -> bool:
    """Whether a function of the C library answers 0; `why` says why not."""
    function = getattr(libc, name, None)
    if function is None:
        ctypes.set_errno(errno.ENOSYS)
        return False
    wide = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    return bool(function(*wide) == 0)


def why() -> str:
    """The system's word for the last failure."""
    return os.strerror(ctypes.get_errno())
