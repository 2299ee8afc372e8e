"""Why the ledger did not do what was asked; nothing was changed then."""

import math
from collections.abc import Sequence
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal

from policies.accounting import ADJACENCY


class LedgerError(Exception):
    """The ledger did not do what was asked, and changed nothing."""


class LedgerUnavailable(LedgerError):
    """The ledger can't be read or written (disk full, locked, damaged): nothing may leave."""


class NotApproved(LedgerError):
    """The plan isn't approved here, or the release isn't one of those approved."""


class AlreadyReleased(LedgerError):
    """This attempt exists already; a release is repeated only under a new attempt number."""


class AttemptOpen(AlreadyReleased):
    """An earlier attempt of this release is neither charged nor void yet."""


class AttemptsExhausted(LedgerError):
    """The plan's spare attempts are used up."""


class NotReserved(LedgerError):
    """There is no open reservation to charge or to void."""


class WrongStatus(LedgerError):
    """The decision doesn't fit the plan's status."""


class UnknownPopulation(LedgerError):
    """No budget was opened for this population."""


class BadSignature(LedgerError):
    """The owner's signature doesn't verify for this plan and this domain."""


class HeadRefused(LedgerError):
    """A peer's ledger isn't what it showed before, or didn't set this release aside.

    Attributes:
        culprit: whose; the text begins with it, so that a coordinator reads who is refused.
    """

    def __init__(self, culprit: str, reason: str) -> None:
        super().__init__(f"{culprit}: {reason}")
        self.culprit = culprit


class BudgetExceeded(LedgerError):
    """The population's budget has no room for what was asked.

    Attributes:
        requested: epsilon by which the budget's use would grow.
        remaining: epsilon that is left.
        short_by: the difference.
        delta: the budget's delta.
        everywhere: epsilon of all the budget bears for a person who is a user at every partner,
            without this and with it.
        offers: what would fit instead, as phrases.
    """

    def __init__(
        self,
        population: str,
        requested: float,
        remaining: float,
        delta: float,
        everywhere: tuple[float, float],
        offers: Sequence[str] = (),
    ):
        self.requested, self.remaining, self.delta = requested, remaining, delta
        self.short_by = requested - remaining
        self.everywhere, self.offers = everywhere, tuple(offers)
        lines = [
            f"The budget of population {population!r} has no room for this.",
            *shortfall(requested, remaining, delta, everywhere),
            f"A plan that fits: {'; or '.join(offers)}"
            if offers
            else "No plan like this fits: the owner would have to raise the budget.",
        ]
        super().__init__("\n".join(lines))


def shortfall(
    requested: float, remaining: float, delta: float, everywhere: tuple[float, float]
) -> list[str]:
    """The lines that say by how much something doesn't fit.

    `everywhere`: the bound for a person at every partner, without what was requested and with it.
    """
    before, after = (_round(each, ROUND_CEILING) for each in everywhere)
    return [
        *gap(requested, remaining),
        f"All at delta {delta:g}; unit: {ADJACENCY}.",
        f"A person who is a user at every partner: epsilon {before} before this, {after} with it.",
    ]


def gap(requested: float, remaining: float) -> list[str]:
    """The three lines alone."""
    up, down = _round(requested, ROUND_CEILING), _round(remaining, ROUND_FLOOR)
    finite = math.isfinite(requested - remaining)
    short = str(Decimal(up) - Decimal(down)) if finite else "infinite"
    return [
        f"Requested  epsilon {up}",
        f"Remaining  epsilon {down}",
        f"Short by   epsilon {short}",
    ]


def unknown_population(population: str) -> UnknownPopulation:
    """No budget was opened for `population`."""
    return UnknownPopulation(
        f"No budget is open for population {population!r}. The owner opens it with the data set"
    )


def _round(value: float, rounding: str) -> str:
    if math.isinf(value):
        return "infinite" if value > 0 else "none"
    return str(Decimal(value).quantize(Decimal("0.001"), rounding))
