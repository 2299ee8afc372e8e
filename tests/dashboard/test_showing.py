"""Figures keep their units, and a downloaded table is harmless in a spreadsheet."""

import pandas as pd

from dashboard.showing import amount, as_csv, counted, epsilon, shortened
from policies.accounting import ADJACENCY


def test_a_downloaded_table_holds_no_formula() -> None:
    frame = pd.DataFrame(
        {"name": ["=cmd()", "@x", "+1", "plain"], "epsilon": [-1.0, 2.0, 3.0, 4.0]}
    )
    lines = as_csv(frame).decode("utf-8-sig").splitlines()
    assert lines == ["name,epsilon", "'=cmd(),-1.0", "'@x,2.0", "'+1,3.0", "plain,4.0"]


def test_an_epsilon_is_shown_with_its_delta_and_adjacency() -> None:
    assert epsilon(1.5, 1e-5) == f"epsilon 1.500 at delta 1e-05 ({ADJACENCY})"
    assert "NOT PRIVATE" in epsilon(None, 1e-5)


def test_an_amount_is_shown_with_its_unit() -> None:
    assert amount(12345, "releases") == "12,345 releases"
    assert amount(0.25, "MB") == "0.250 MB"
    assert amount(None) == "no limit"


def test_what_is_counted_has_marks_at_whole_numbers_only() -> None:
    assert counted(pd.Series([1, 2])).to_dict()["values"] == [1, 2]
    assert counted(pd.Series([3])).to_dict()["values"] == [3]
    assert counted(pd.Series(range(1, 101))).to_dict()["values"] == list(range(1, 101, 13))


def test_keys_are_shown_by_their_beginning_and_words_as_they_are() -> None:
    assert shortened("a" * 64 + ", " + "b" * 64) == "a" * 12 + "…, " + "b" * 12 + "…"
    assert shortened("a plan called deadbeef") == "a plan called deadbeef"
