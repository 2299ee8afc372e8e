"""One thing that `coterie domain doctor` looked at, and what to do about it."""

from dataclasses import dataclass
from enum import StrEnum

_SOON_DAYS = 30


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


def about_days(check: str, days: int) -> Finding:
    """A certificate that holds for so many days more; negative if it is over."""
    if days >= _SOON_DAYS:
        return Finding(check, Verdict.GOOD, f"Holds for {days} days.")
    told = f"Holds for {max(days, 0)} days. Renew it: coterie domain certificate --help"
    return Finding(check, Verdict.BAD if days < 0 else Verdict.WEAK, told)
