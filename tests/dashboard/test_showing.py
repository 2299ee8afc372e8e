"""Figures keep their units, and a downloaded table is harmless in a spreadsheet."""

import pandas as pd

from dashboard.showing import amount, as_csv, epsilon
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
