"""Exit codes of the `coterie` command; each has a paragraph in docs/exit-codes.md."""

from enum import IntEnum


class ExitCode(IntEnum):
    OK = 0
    UNEXPECTED = 1
    USAGE = 2
    DENIED = 3
    REFUSED = 4
    UNREACHABLE = 5
    BAD_DATA = 6
    ALREADY_RUNNING = 7
    INTERRUPTED = 8
    NOT_VERIFIED = 9
    LOGIN_FAILED = 10
