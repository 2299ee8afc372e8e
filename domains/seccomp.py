"""Seccomp: the system calls that a process can't make any more, nor whatever it becomes.

Source: seccomp(2), linux/seccomp.h; a classic BPF program, read by the kernel at every call. What
could reach another process is refused even where both are the same user's: its limits, priority
and memory, and the signals that a pipe sends to whom it was told to.
"""

import ctypes
import errno
import os
import platform
import struct
import sys
from collections.abc import Sequence

from domains.landlock import called, why

_CLONE_THREAD = 0x00010000
_SET_OWNER, _SET_SIGNAL, _SET_OWNER_EX = 8, 10, 15
_SET_FILTER, _ALL_THREADS = 1, 1
_ALLOW, _REFUSE, _KILL = 0x7FFF0000, 0x00050000, 0x80000000
_LOAD, _EQUAL, _ABOVE, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER_AT, _ARCHITECTURE_AT, _ARGUMENTS_AT = 0, 4, 16
_MACHINES = {"x86_64": (0, 0xC000003E, 317), "aarch64": (1, 0xC00000B7, 277)}

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
_OTHERS = (
    (141, 140), (142, 118), (144, 119), (203, 122), (314, 274), (251, 30),  # their priority, CPUs
    (256, 238), (279, 239), (448, 448), (109, 154), (112, 157),  # their memory, groups, sessions
    (253, None), (294, 26), (254, 27), (300, 262), (301, 263), (162, 81), (306, 267),  # watch, sync
)  # fmt: skip
_UNCOUNTED = ((319, 279), (447, 447))  # memfd_create memfd_secret: memory that no limit counts
_ABSENT = ((435, 435), (437, 437))  # clone3 openat2: their flags lie where a filter can't look

_Steps = list[tuple[int, int, int, int]]


class SeccompRefused(OSError):
    """It isn't in use here, or no filter was written for this machine; nothing is closed."""


def refuse_calls(libc: ctypes.CDLL) -> None:
    """Refuse what the tables name to this process for good, in all of its threads.

    Raises:
        SeccompRefused: see there.
    """
    machine = platform.machine()
    if machine not in _MACHINES or sys.byteorder != "little":
        raise SeccompRefused(f"no filter was written for {machine}")
    program = _filter(machine, os.getpid())
    code = ctypes.create_string_buffer(program, len(program))
    # struct sock_fprog: a 16-bit length and a pointer, aligned as C does.
    asked = struct.pack("@HP", len(program) // 8, ctypes.addressof(code))
    if not called(libc, "syscall", _MACHINES[machine][2], _SET_FILTER, _ALL_THREADS, asked):
        raise SeccompRefused(f"seccomp refused: {why()}")


def _filter(machine: str, process: int) -> bytes:
    column, architecture, _ = _MACHINES[machine]
    refuse, absent = _REFUSE | errno.EPERM, _REFUSE | errno.ENOSYS
    steps = [(_LOAD, 0, 0, _ARCHITECTURE_AT), (_EQUAL, 1, 0, architecture), (_RETURN, 0, 0, _KILL)]
    steps += [(_LOAD, 0, 0, _NUMBER_AT)]
    if machine == "x86_64":
        # Its second, 32-bit set of numbers would slip through the tables.
        steps += [(_ABOVE, 0, 1, 0x40000000), (_RETURN, 0, 0, _KILL)]
    refused = (*_NETWORK, *_PROCESSES, *_OTHERS, *_UNCOUNTED, *_PRIVILEGES, *_WRITING)
    for answer, calls in ((refuse, refused), (absent, _ABSENT)):
        for call in calls:
            number = call[column]
            if number is not None:
                steps += [(_EQUAL, 0, 1, number), (_RETURN, 0, 0, answer)]
    to_write = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
    for number, argument in ((2, 1), (257, 2)) if column == 0 else ((56, 2),):
        steps += _refused_if(number, argument, _ANY_BIT, [to_write], refuse)
    clone, signal_thread = ((56, 234), (220, 131))[column]
    limits, descriptor = ((302, 72), (261, 25))[column]
    steps += _only_if(clone, 0, _ANY_BIT, _CLONE_THREAD, refuse)
    steps += _only_if(signal_thread, 0, _EQUAL, process, refuse)
    steps += _only_if(limits, 0, _EQUAL, 0, refuse)
    owners = [_SET_OWNER, _SET_SIGNAL, _SET_OWNER_EX]
    steps += _refused_if(descriptor, 1, _EQUAL, owners, refuse)
    steps += [(_RETURN, 0, 0, _ALLOW)]
    return b"".join(struct.pack("<HBBI", *step) for step in steps)


def _refused_if(
    number: int, argument: int, test: int, values: Sequence[int], answer: int
) -> _Steps:
    """Refuse this call where the low half of its argument passes the test with one of these."""
    last = len(values)
    return [
        (_EQUAL, 0, last + 3, number),
        (_LOAD, 0, 0, _ARGUMENTS_AT + 8 * argument),
        *((test, last - index, 0, value) for index, value in enumerate(values)),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, answer),
    ]


def _only_if(number: int, argument: int, test: int, value: int, answer: int) -> _Steps:
    """Refuse this call unless the low half of its argument passes the test."""
    return [
        (_EQUAL, 0, 4, number),
        (_LOAD, 0, 0, _ARGUMENTS_AT + 8 * argument),
        (test, 1, 0, value),
        (_RETURN, 0, 0, answer),
        (_RETURN, 0, 0, _ALLOW),
    ]
