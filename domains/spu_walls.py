"""What SPU's process gives up before it begins; run by the node's own interpreter.

    PYTHON -m domains.spu_walls SPU_PYTHON PARTY FOLDER < SHARE

SPU reads with its own C++ what two partners send. So it becomes SPU only after it has lost all
files but SPU's program and FOLDER, all TCP ports but the three parties', and all privileges. Where
the kernel has no landlock, files and ports stay open to it, as far as the node's user may reach.
"""

import ctypes
import json
import os
import resource
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from domains.confinement import drop_privileges
from domains.landlock import LandlockRefused, Open, close_all_but

CPU_LIMIT_S, FILE_LIMIT = 1800, 2**26
_LIBRARIES = ("/usr/lib", "/usr/lib64", "/usr/local/lib", "/lib", "/lib64")
_SETTINGS = ("hosts", "host.conf", "resolv.conf", "nsswitch.conf", "gai.conf", "ld.so.cache",
             "localtime", "ssl/openssl.cnf")  # fmt: skip
_DEVICES = ("/dev/urandom", "/dev/random", "/dev/zero", "/proc/cpuinfo", "/proc/meminfo",
            "/proc/stat", "/proc/sys/kernel", "/sys/devices/system/cpu")  # fmt: skip


def program_of(python: str, party: Path) -> list[Path]:
    """What an interpreter and the party's two files take to run; no data and no keys."""
    asked = "import sys; print(sys.prefix, sys.base_prefix, sys.base_exec_prefix, sep='\\n')"
    said = subprocess.run([python, "-I", "-c", asked], capture_output=True, text=True, check=True)
    places = [*said.stdout.splitlines(), *_LIBRARIES, *_DEVICES]
    settings = [Path("/etc") / name for name in _SETTINGS]
    return [*map(Path, places), *settings, party, party.with_name("spu_lines.py")]


def close_walls(python: str, party: Path, folder: Path) -> None:
    """Confine this process, with one thread, to what a comparison takes."""
    job = json.loads((folder / "job.json").read_text())
    ports = [int(address.rpartition(":")[2]) for address in job["addresses"]]
    own, local = ports.pop(job["rank"]), job["ports"]
    for kind, bound in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_CPU, CPU_LIMIT_S),
        (resource.RLIMIT_FSIZE, FILE_LIMIT),
    ):
        resource.setrlimit(kind, (bound, bound))
    libc = ctypes.CDLL(None, use_errno=True)
    drop_privileges(libc)
    with suppress(LandlockRefused):
        close_all_but(
            libc,
            Open(
                read=_opened(program_of(python, party)),
                write=_opened([folder, Path("/dev/null")]),
                listen=[own, *local],
                connect=[*ports, *local],
            ),
        )


def _opened(places: list[Path]) -> list[int]:
    # Closed when the process becomes SPU.
    return [os.open(place, os.O_PATH | os.O_CLOEXEC) for place in places if place.exists()]


def main() -> None:
    python, party, folder = sys.argv[1:]
    close_walls(python, Path(party), Path(folder))
    environment = {
        "PATH": "/usr/bin:/bin",
        "HOME": folder,
        "TMPDIR": folder,
        "JAX_PLATFORMS": "cpu",
    }
    os.execve(python, [python, "-I", party, folder], environment)


if __name__ == "__main__":
    main()
