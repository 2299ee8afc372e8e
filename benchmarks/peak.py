"""Peak resident memory of this or another process within a stretch of time, by Linux' own count."""

import os
from pathlib import Path
from types import TracebackType
from typing import Self


class PeakMemory:
    """From here on; or use it in a `with` block.

    Args:
        pid: whose; this process without.

    Attributes:
        extra_mb: at the end, the peak beyond what was resident when it began, in 10^6 bytes.
    """

    def __init__(self, pid: int | None = None) -> None:
        self._folder = Path("/proc") / str(pid or os.getpid())
        self.extra_mb = 0.0
        self.reset()

    def reset(self) -> None:
        """Begin anew."""
        (self._folder / "clear_refs").write_text("5")
        self._before = self._status("VmRSS")

    def stop(self) -> float:
        """The peak since, beyond what was resident then, in 10^6 bytes."""
        self.extra_mb = (self._status("VmHWM") - self._before) / 1e6
        return self.extra_mb

    def _status(self, name: str) -> int:
        lines = (self._folder / "status").read_text().splitlines()
        return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(name + ":"))

    def __enter__(self) -> Self:
        self.reset()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.stop()
