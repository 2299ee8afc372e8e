"""Mocks: a look at the shape of a data set, made without a row of it."""

from pathlib import Path

import pandas as pd

from domains.declaration import Declaration
from domains.mock import mock_interactions


def declared(folder: Path) -> Declaration:
    (folder / "catalogue.txt").write_text("a\nb\nc\n")
    return Declaration(
        name="clicks",
        population="people",
        columns=("user", "item", "value", "time"),
        users=10,
        items=3,
        interactions_per_user=2,
        value_min=2.0,
        value_max=4.0,
        catalogue=folder / "catalogue.txt",
    )


def test_a_mock_keeps_to_the_declaration(tmp_path: Path) -> None:
    mock = mock_interactions(declared(tmp_path), users=50)
    assert list(mock.columns) == ["user", "item", "value", "time"]
    assert set(mock["item"]) <= {"a", "b", "c"}
    assert mock["value"].between(2.0, 4.0).all()
    assert mock.groupby("user").size().max() <= 2
    assert not mock.duplicated(["user", "item"]).any()


def test_the_same_seed_gives_the_same_mock(tmp_path: Path) -> None:
    once, again = (mock_interactions(declared(tmp_path), seed=3) for _ in range(2))
    pd.testing.assert_frame_equal(once, again)


def test_a_mock_needs_no_data_folder(tmp_path: Path) -> None:
    assert not (tmp_path / "data").exists()
    assert mock_interactions(declared(tmp_path))["user"].str.startswith("mock-").all()
