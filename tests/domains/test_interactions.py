"""Loading an owner's files: what is kept, what is dropped and counted, what is refused."""

import stat
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from domains.declaration import Declaration
from domains.interactions import Interactions, InteractionsError, load_interactions


def declared(folder: Path, **changes: object) -> Declaration:
    (folder / "catalogue.txt").write_text("a\nb\nc\nd\n")
    facts = {
        "name": "clicks", "population": "people", "users": 10, "items": 4,
        "interactions_per_user": 3, "catalogue": folder / "catalogue.txt", **changes,
    }  # fmt: skip
    return Declaration.model_validate(facts)


def write(folder: Path, text: str, name: str = "interactions.csv") -> Path:
    data = folder / "data"
    data.mkdir(exist_ok=True)
    (data / name).write_text(text)
    return data


def test_rows_become_compressed_rows_by_user_in_order_of_time(tmp_path: Path) -> None:
    data = write(tmp_path, "user,item,timestamp\nu2,b,5\nu1,c,9\nu1,a,1\n")
    loaded, report = load_interactions(data, declared(tmp_path))
    assert loaded.names == ("u1", "u2")
    assert loaded.indptr.tolist() == [0, 2, 3]
    assert loaded.items.tolist() == [0, 2, 1]
    assert (report.users, report.interactions) == (2, 3)


def test_a_duplicate_counts_once_and_unknown_items_are_dropped(tmp_path: Path) -> None:
    data = write(tmp_path, "user,item\nu,a\nu,a\nu,zzz\n")
    loaded, report = load_interactions(data, declared(tmp_path))
    assert loaded.items.tolist() == [0]
    assert (report.duplicates, report.unknown_items) == (1, 1)


def test_a_user_with_too_many_interactions_keeps_the_latest(tmp_path: Path) -> None:
    data = write(tmp_path, "user,item,time\nu,a,1\nu,b,2\nu,c,3\nu,d,4\n")
    loaded, report = load_interactions(data, declared(tmp_path))
    assert loaded.items.tolist() == [1, 2, 3]
    assert report.shortened_users == 1


def test_a_user_with_one_interaction_is_kept(tmp_path: Path) -> None:
    loaded, _ = load_interactions(write(tmp_path, "user,item\nu,a\n"), declared(tmp_path))
    assert (loaded.users, loaded.targets.tolist()) == (1, [-1])


def test_appending_a_month_is_adding_a_file(tmp_path: Path) -> None:
    write(tmp_path, "user,item\nu,a\n")
    data = write(tmp_path, "user,item\nu,b\nv,c\n", "interactions-2.csv")
    loaded, _ = load_interactions(data, declared(tmp_path))
    assert loaded.indptr.tolist() == [0, 2, 3]


def test_held_out_items_are_targets_only(tmp_path: Path) -> None:
    write(tmp_path, "user,item\nu,a\n")
    data = write(tmp_path, "user,item\nu,d\nstranger,b\n", "holdout.csv")
    loaded, _ = load_interactions(data, declared(tmp_path))
    assert loaded.targets.tolist() == [3]
    assert loaded.items.tolist() == [0]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("person,item\nu,a\n", "no column 'user'"),
        ("user,item\nu,\n", "line 2: the item id is empty"),
        ("user,item\n-3,a\n", "line 2: the user id is negative"),
        (f"user,item\n{'9' * 200},a\n", "line 2: the user id is too long"),
        ("user,item,time\nu,a,NaN\n", "line 2: time isn't a finite number"),
        ("", "is empty"),
        ("user,item\n", "no rows"),
        ("user,item\nu,zzz\n", "no interaction with an item of the catalogue"),
    ],
)
def test_bad_input_says_where_and_what(tmp_path: Path, text: str, says: str) -> None:
    data = write(tmp_path, text)
    with pytest.raises(InteractionsError, match=says):
        load_interactions(data, declared(tmp_path))


def test_an_unreadable_file_and_too_many_users_are_refused(tmp_path: Path) -> None:
    data = write(tmp_path, "nothing", "interactions.parquet")
    with pytest.raises(InteractionsError, match="can't be read as a table"):
        load_interactions(data, declared(tmp_path))
    (data / "interactions.parquet").unlink()
    write(tmp_path, "user,item\nu,a\nv,a\n")
    with pytest.raises(InteractionsError, match="more users than the 1 declared"):
        load_interactions(data, declared(tmp_path, users=1))


def test_arrays_are_stored_for_this_user_alone(tmp_path: Path) -> None:
    loaded, _ = load_interactions(write(tmp_path, "user,item\nu,a\nu,b\n"), declared(tmp_path))
    loaded.save(tmp_path / "store")
    modes = {stat.S_IMODE(f.stat().st_mode) for f in (tmp_path / "store").iterdir()}
    assert modes == {0o600}
    again = Interactions.load(tmp_path / "store")
    assert np.array_equal(again.items, loaded.items)


def test_parquet_and_xz_are_read_too(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    table = pd.DataFrame({"user": [1, 2], "item": ["a", "b"]})
    table.to_parquet(data / "interactions-1.parquet")
    table.assign(user=[3, 4]).to_csv(data / "interactions-2.csv.xz", index=False)
    assert load_interactions(data, declared(tmp_path))[0].users == 4
