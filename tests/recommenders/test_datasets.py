"""Reading interactions: what is accepted, what is refused and why, and how items are held out."""

import os
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from pandas import DataFrame

from recommenders.datasets import (
    MAX_ID,
    NEGATIVES,
    DataRefused,
    DataUnavailable,
    hold_out_last,
    positions,
    read_benchmark,
    read_interactions,
)
from recommenders.movielens import cache_folder, movielens_100k


def written(folder: Path, text: str, name: str = "data.csv") -> Path:
    path = folder / name
    path.write_text(text)
    return path


# Reading a file


@pytest.mark.parametrize("name", ["data.csv", "data.csv.xz", "data.parquet"])
def test_every_format_reads_alike(tmp_path: Path, name: str) -> None:
    table = DataFrame({"user": [7, 8], "item": [1, 2], "value": [5.0, 4.0], "time": [10.0, 20.0]})
    path = tmp_path / name
    if name.endswith("parquet"):
        table.to_parquet(path)
    else:
        table.to_csv(path, index=False)
    pd.testing.assert_frame_equal(read_interactions(path), table)


@pytest.mark.parametrize(
    ("header", "columns"),
    [
        ("user,item,rating,timestamp", ["user", "item", "value", "time"]),
        ("user,item,position", ["user", "item", "time"]),
        ("Item, User, Rating", ["user", "item", "value"]),
        ("user,item,title", ["user", "item"]),
    ],
)
def test_columns_go_by_several_names(tmp_path: Path, header: str, columns: list[str]) -> None:
    row = ",".join("1" for _ in header.split(","))
    assert list(read_interactions(written(tmp_path, f"{header}\n{row}\n"))) == columns


def test_text_ids_are_numbered_in_sorted_order(tmp_path: Path) -> None:
    path = written(tmp_path, "user,item\nzoe,B01\nada,0700\nzoe,A02\n")
    table = read_interactions(path)
    assert table["user"].tolist() == [1, 0, 1]
    assert table["item"].tolist() == [2, 0, 1]


def test_a_repeated_pair_counts_once_the_latest(tmp_path: Path) -> None:
    text = "user,item,rating,timestamp\n1,2,5,30\n1,3,4,10\n1,2,1,20\n"
    table = read_interactions(written(tmp_path, text))
    assert table.to_numpy().tolist() == [[1, 2, 5, 30], [1, 3, 4, 10]]


def test_without_times_the_last_row_of_a_repeated_pair_counts(tmp_path: Path) -> None:
    table = read_interactions(written(tmp_path, "user,item,value\n1,2,5\n1,3,4\n1,2,1\n"))
    assert table.to_numpy().tolist() == [[1, 3, 4], [1, 2, 1]]


SECRET = "4242424"
BAD_FILES = {
    "missing column": ("user,rating\n1,2\n", "column item missing"),
    "both columns": ("a,b\n1,2\n", "column user and item missing"),
    "two names for one": ("user,item,value,rating\n1,2,3,4\n", "only one of the columns value"),
    "NaN": (f"user,item\n1,2\n{SECRET},\n", "column item is missing .NaN. in 1 rows.* row 2"),
    "NaN value": (f"user,item,value\n{SECRET},2,nan\n", "column value is missing"),
    "infinite value": (f"user,item,value\n{SECRET},2,inf\n", "column value is infinite"),
    "negative": (f"user,item\n-{SECRET},2\n", "column user is negative"),
    "huge": (f"user,item\n1,{SECRET}0000\n", f"column item is larger than {MAX_ID}"),
    "beyond 64 bits": (f"user,item\n1,{SECRET}{'0' * 20}\n", "column item .*numbers"),
    "fraction": (f"user,item\n1,{SECRET}.5\n", "column item is not a whole number"),
    "text": (f"user,item\n1,1\n1,2\n1,{SECRET}x\n", "column item is not a number in 1 rows"),
    "no bytes": ("", "file is empty"),
    "no rows": ("user,item\n", "no rows"),
    "surplus fields": (f"user,item\n1,2,{SECRET}\n", "more fields than the header"),
    "ragged": (f"user,item\n1,2\n1,2,{SECRET}\n", "can't be read as csv"),
    "binary": ("user,item\n\x00\x01\x02\n", "column|can't be read"),
}


@pytest.mark.parametrize(("text", "said"), BAD_FILES.values(), ids=BAD_FILES)
def test_a_bad_file_is_refused_without_quoting_it(tmp_path: Path, text: str, said: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(DataRefused, match=said) as refused:
        read_interactions(path)
    assert str(path) in str(refused.value)
    assert SECRET not in str(refused.value)


@pytest.mark.parametrize("name", ["data.csv.xz", "data.parquet"])
def test_a_file_of_another_format_than_its_name_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataRefused, match="can't be read"):
        read_interactions(written(tmp_path, "user,item\n1,2\n", name))


def test_a_cut_archive_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "data.csv.xz"
    DataFrame({"user": range(1000), "item": range(1000)}).to_csv(path, index=False)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataRefused, match="can't be read"):
        read_interactions(path)


def test_a_file_that_is_not_there_or_not_of_a_known_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataRefused, match="no such file"):
        read_interactions(tmp_path / "none.csv")
    with pytest.raises(DataRefused, match=r"\.csv, \.csv\.xz, \.parquet"):
        read_interactions(written(tmp_path, "x", "data.pkl"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_we_may_not_read_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, "user,item\n1,2\n")
    path.chmod(0)
    with pytest.raises(DataRefused, match="readable by you"):
        read_interactions(path)


# Holding out


def history(users: int = 5, length: int = 4, items: int = 150) -> DataFrame:
    """Every user's first `length` items of a shifted row; together they cover the catalogue."""
    rows = [(100, item, 0.0) for item in range(40)]
    rows += [(u, (u * 37 + t * 29) % items, float(t)) for u in range(users) for t in range(length)]
    rows += [(200 + item, item, 0.0) for item in range(items)]
    return DataFrame(rows, columns=["user", "item", "time"])


def test_the_last_interaction_by_time_is_held_out() -> None:
    shuffled = history().sample(frac=1.0, random_state=3)
    benchmark = hold_out_last(shuffled, "toy")
    held_out = benchmark.test.set_index("user")["item"]
    assert held_out[2] == (2 * 37 + 3 * 29) % 150
    assert len(benchmark.train) + len(benchmark.test) == len(shuffled)
    both = benchmark.train.merge(benchmark.test, on=["user", "item"])
    assert both.empty


def test_without_times_the_last_row_is_held_out() -> None:
    benchmark = hold_out_last(history().drop(columns="time"), "toy")
    assert benchmark.test.set_index("user")["item"][100] == 39


def test_a_user_with_one_interaction_is_never_held_out_and_stays_in_training() -> None:
    benchmark = hold_out_last(history(), "toy")
    assert set(benchmark.test["user"]) == {0, 1, 2, 3, 4, 100}
    assert set(range(200, 350)) <= set(benchmark.train["user"])


def test_a_user_without_99_untouched_items_is_not_held_out() -> None:
    table = history()
    everything = DataFrame({"user": 7, "item": range(52), "time": 0.0})
    assert 7 not in set(hold_out_last(pd.concat((table, everything)), "toy").test["user"])
    assert 7 in set(hold_out_last(pd.concat((table, everything[:51])), "toy").test["user"])


def test_negatives_are_99_distinct_items_the_user_never_touched() -> None:
    table = history()
    benchmark = hold_out_last(table, "toy")
    assert benchmark.negatives.shape == (len(benchmark.test), NEGATIVES)
    for user, negatives in zip(benchmark.test["user"], benchmark.negatives, strict=True):
        assert len(set(negatives)) == NEGATIVES
        assert not set(negatives) & set(table[table["user"] == user]["item"])
    assert benchmark.candidates.shape == (len(benchmark.test), 1 + NEGATIVES)
    assert benchmark.candidates[:, 0].tolist() == benchmark.test["item"].tolist()


def test_the_seed_decides_the_negatives_and_other_users_do_not() -> None:
    table = history()
    first, again, other = (hold_out_last(table, "toy", seed).negatives for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    fewer = hold_out_last(table[table["user"] != 0], "toy", 1)
    np.testing.assert_array_equal(fewer.negatives, first[1:])


def test_too_small_a_catalogue_is_refused() -> None:
    with pytest.raises(DataRefused, match="nobody can be held out"):
        hold_out_last(DataFrame({"user": [1, 1, 2], "item": [1, 2, 3]}), "toy")


def test_positions_are_those_of_the_sorted_catalogue() -> None:
    catalogue = np.array([2, 5, 9])
    assert positions(np.array([[9, 2], [5, 5]]), catalogue).tolist() == [[2, 0], [1, 1]]
    for unknown in (1, 3, 10):
        with pytest.raises(DataRefused, match="catalogue"):
            positions(np.array([unknown]), catalogue)
    with pytest.raises(DataRefused, match="catalogue"):
        positions(np.array([1]), np.array([], dtype=np.int64))


# A folder in the layout of He et al. 2017


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "toy"
    folder.mkdir()
    listed = [" ".join(str(item) for item in range(start, start + 99)) for start in (10, 20)]
    train = DataFrame({"user": [0, 1, 1], "item": [1, 2, 3], "rating": 1, "timestamp": 0})
    train.to_csv(folder / "train.csv.xz", index=False)
    DataFrame({"user": [1, 0], "item": [4, 5]}).to_csv(folder / "test.csv.xz", index=False)
    table = DataFrame({"user": [0, 1], "items": listed})
    table.to_csv(folder / "test_negatives.csv.xz", index=False)
    return folder


def test_a_folder_is_read_as_it_is_with_rows_aligned_by_user(folder: Path) -> None:
    benchmark = read_benchmark(folder)
    assert benchmark.name == "toy"
    assert benchmark.test.to_numpy().tolist() == [[0, 5], [1, 4]]
    assert benchmark.negatives[:, 0].tolist() == [10, 20]
    assert benchmark.catalogue.tolist() == [1, 2, 3, 4, 5, *range(10, 119)]


def test_a_file_is_read_and_held_out(tmp_path: Path) -> None:
    path = tmp_path / "shop.csv.xz"
    history().to_csv(path, index=False)
    benchmark = read_benchmark(path, seed=4)
    expected = hold_out_last(history(), "shop", seed=4)
    assert benchmark.name == "shop"
    np.testing.assert_array_equal(benchmark.negatives, expected.negatives)


@pytest.mark.parametrize(
    ("part", "table", "said"),
    [
        ("test", DataFrame({"user": [1, 1], "item": [4, 5]}), "one held-out item only"),
        ("test", DataFrame({"user": [0, 2], "item": [4, 5]}), "don't name the same users"),
        ("test_negatives", DataFrame({"user": [0, 1], "items": ["1 2", "3"]}), "line 2"),
        ("test_negatives", DataFrame({"user": [0], "items": ["x " * 99]}), "line 2"),
        ("test_negatives", DataFrame({"user": [0, 0], "items": ["1 " * 99] * 2}), "line 3"),
        ("test_negatives", DataFrame({"user": [0], "items": ["9999999999 " * 99]}), "above"),
        ("train", DataFrame({"item": [1]}), "column user missing"),
    ],
)
def test_a_folder_whose_parts_do_not_agree_is_refused(
    folder: Path, part: str, table: DataFrame, said: str
) -> None:
    table.to_csv(folder / f"{part}.csv.xz", index=False)
    with pytest.raises(DataRefused, match=said):
        read_benchmark(folder)


def test_a_folder_without_one_of_its_parts_is_refused(folder: Path) -> None:
    (folder / "test_negatives.csv.xz").unlink()
    with pytest.raises(DataRefused, match="no such file"):
        read_benchmark(folder)


# MovieLens-100K. No test here talks to anything but pip's own configuration, save the one marked.


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)


@pytest.mark.usefixtures("offline")
def test_offline_the_error_says_what_to_do_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(DataUnavailable, match=r"connect once.*--data PATH"):
        movielens_100k(tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


@pytest.mark.usefixtures("offline")
def test_a_wheel_with_another_checksum_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf = tmp_path / "shelf"
    shelf.mkdir()
    with zipfile.ZipFile(shelf / "recbole-1.2.1-py3-none-any.whl", "w") as wheel:
        wheel.writestr("recbole-1.2.1.dist-info/METADATA", "Name: recbole\nVersion: 1.2.1\n")
        wheel.writestr("recbole-1.2.1.dist-info/WHEEL", "Wheel-Version: 1.0\n")
        wheel.writestr("recbole/dataset_example/ml-100k/ml-100k.inter", "a\tb\n1\t2\n")
    monkeypatch.setenv("PIP_FIND_LINKS", str(shelf))
    with pytest.raises(DataUnavailable, match="another SHA-256"):
        movielens_100k(tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


@pytest.mark.usefixtures("offline")
def test_a_changed_file_in_the_cache_is_not_used(tmp_path: Path) -> None:
    (tmp_path / "ml-100k.inter").write_text("user_id:token\titem_id:token\n1\t2\n")
    with pytest.raises(DataUnavailable):
        movielens_100k(tmp_path)


def test_movielens_100k_is_the_real_one_and_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    try:
        first = movielens_100k(tmp_path)
    except DataUnavailable as error:
        pytest.skip(f"needs the package index: {error}")
    assert first.shape == (100_000, 4)
    assert (first["user"].nunique(), first["item"].nunique()) == (943, 1682)
    assert set(first["value"]) == {1.0, 2.0, 3.0, 4.0, 5.0}
    assert [path.name for path in tmp_path.iterdir()] == ["ml-100k.inter"]
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    pd.testing.assert_frame_equal(movielens_100k(tmp_path), first)


def test_the_cache_follows_the_xdg_convention(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert cache_folder() == Path("/somewhere/coterie")
    for ignored in ("", "relative"):
        monkeypatch.setenv("XDG_CACHE_HOME", ignored)
        assert cache_folder() == Path.home() / ".cache" / "coterie"
