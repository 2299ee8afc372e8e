"""Moments are shown by the reader's clock, and say whose it is."""

from datetime import UTC, timedelta, timezone
from zoneinfo import ZoneInfo

import pandas as pd
import pytest

from dashboard.showing import as_csv
from dashboard.times import instant, moment


@pytest.mark.parametrize(
    ("zone", "shown"),
    [
        (UTC, "2026-11-28 14:17 UTC"),
        (ZoneInfo("Europe/Berlin"), "2026-11-28 15:17 CET"),
        (ZoneInfo("America/Sao_Paulo"), "2026-11-28 11:17 UTC-03"),
        (timezone(timedelta(hours=5, minutes=30)), "2026-11-28 19:47 UTC+05:30"),
    ],
)
def test_a_moment_is_in_the_readers_zone_which_is_named(zone: timezone, shown: str) -> None:
    assert moment("2026-11-28T14:17:45+00:00", zone) == shown


def test_what_never_happened_has_no_moment() -> None:
    assert [moment(each) for each in ("", None, pd.NaT)] == ["", "", ""]


def test_downloads_keep_the_exact_moment() -> None:
    frame = pd.DataFrame({"when": [instant("2026-11-28T14:17:45+00:00"), instant("")]})
    assert as_csv(frame).decode("utf-8-sig").splitlines()[1] == "2026-11-28 14:17:45+00:00"


def test_what_is_no_moment_is_refused() -> None:
    with pytest.raises(ValueError, match="soon"):
        instant("soon")
