"""Moments as the reader's own clock shows them; nodes and ledgers write UTC."""

from datetime import UTC, datetime, tzinfo
from zoneinfo import ZoneInfo

import pandas as pd
import streamlit as st


def instant(written: str | None) -> datetime | None:
    """A moment from ISO 8601 (UTC if it names no zone); None where nothing is written.

    Raises:
        ValueError: it is written otherwise.
    """
    if not written:
        return None
    found = datetime.fromisoformat(written)
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)


def moment(when: datetime | str | None, zone: tzinfo | None = None) -> str:
    """A moment to the minute in the reader's zone, which is named; empty where there is none.

    Args:
        when: as `instant` takes or gives it.
        zone: default: the browser's.
    """
    return _written(when, zone, "%Y-%m-%d %H:%M")


def clock(when: datetime | str | None, zone: tzinfo | None = None) -> str:
    """As `moment`, to the second and without the day: for what was just now."""
    return _written(when, zone, "%H:%M:%S")


def _written(when: datetime | str | None, zone: tzinfo | None, form: str) -> str:
    if isinstance(when, str):
        when = instant(when)
    if when is None or pd.isna(when):
        return ""
    local = when.astimezone(zone or _zone_of_browser())
    name = local.tzname() or ""
    return f"{local:{form}} {'UTC' if name[:1] in '+-' else ''}{name}"


def _zone_of_browser() -> tzinfo:
    """UTC where the browser names no zone, or one that isn't known here."""
    try:
        return ZoneInfo(st.context.timezone or "UTC")
    except (KeyError, ValueError, OSError):
        return UTC
