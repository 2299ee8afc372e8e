"""Public data sets and their held-out benchmarks, for demos, tests and baselines.

This is the data scientist's and the demo's reader, for files that are public or one's own. A node
loads its private interactions by itself, against its owner's declaration.

Data is never committed and never shown: messages name columns, lines and counts, not values.
"""

import lzma
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pandas import DataFrame

NEGATIVES = 99
"""Sampled negatives a held-out item is ranked against (He et al. 2017, section 4.1)."""

MAX_ID = 2**31 - 1
"""Largest user or item id; beyond it, ids are taken for a mistake (a timestamp, a hash)."""

_ALIASES = {"rating": "value", "timestamp": "time", "position": "time"}
_SUFFIXES = (".csv", ".csv.xz", ".parquet")


class DataUnavailable(RuntimeError):
    """A public data set couldn't be obtained; the text says why and what to do."""


class DataRefused(ValueError):
    """A file isn't a usable set of interactions; the text says what was expected."""


@dataclass(frozen=True)
class Benchmark:
    """Interactions to train on and one held-out item per evaluated user.

    Attributes:
        name: what to call it in a table.
        train: columns user, item (int64) and, where known, value and time (float64).
        test: columns user, item (int64); a user at most once.
        negatives: int64 of shape [len(test), 99]; row i belongs to row i of `test`.
    """

    name: str
    train: DataFrame
    test: DataFrame
    negatives: NDArray[np.int64]

    @property
    def catalogue(self) -> NDArray[np.int64]:
        """All item ids that occur, sorted: int64 of shape [N]."""
        parts = (self.train["item"].to_numpy(), self.test["item"].to_numpy())
        return np.unique(np.concatenate((*parts, self.negatives.ravel())))

    @property
    def candidates(self) -> NDArray[np.int64]:
        """Items to rank per test user, the held-out one first: int64 of shape [users, 100]."""
        held_out = self.test["item"].to_numpy()
        return np.column_stack((held_out, self.negatives))


def positions(items: NDArray[np.int64], catalogue: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where each item stands in a sorted catalogue; same shape as `items`.

    Raises:
        DataRefused: an item isn't in the catalogue.
    """
    found = np.searchsorted(catalogue, items).clip(max=max(len(catalogue) - 1, 0))
    if items.size and (not len(catalogue) or np.any(catalogue[found] != items)):
        raise DataRefused("an item isn't in the catalogue; extend the catalogue or drop the item")
    return found.astype(np.int64)


def read_interactions(path: Path | str) -> DataFrame:
    """Read interactions from a csv, csv.xz or parquet file.

    Columns: user and item (whole numbers from 0 to `MAX_ID`, or texts, which are numbered in sorted
    order; at least half of the entries must then be no numbers), optionally value (or `rating`) and
    time (or `timestamp`, or `position`); others are ignored. A pair of user and item that occurs
    several times counts once: the latest, or without times the last in the file.

    Returns:
        Columns user, item (int64) and, if given, value, time (float64), in file order.

    Raises:
        DataRefused: unreadable or empty file, missing column, or a NaN, negative, fractional or
            huge entry.
    """
    path = Path(path)
    table = _numbered(_table(path, ("user", "item")), ("user", "item"))
    _check_ids(path, table, ("user", "item"))
    for column in ("value", "time"):
        if column in table:
            _check_finite(path, table, column)
    table = table.astype(dict.fromkeys(table.columns.difference(["user", "item"]), "float64"))
    table = table.astype({"user": "int64", "item": "int64"})
    if "time" in table:
        latest = table.sort_values("time", kind="stable")
        table = latest.drop_duplicates(["user", "item"], keep="last").sort_index()
    else:
        table = table.drop_duplicates(["user", "item"], keep="last")
    order = [column for column in ("user", "item", "value", "time") if column in table]
    return table[order].reset_index(drop=True)


def read_benchmark(path: Path | str, seed: int = 0) -> Benchmark:
    """Read a benchmark with leave-one-out evaluation against 99 negatives.

    Args:
        path: either a folder in the layout of He et al. 2017 (train.csv.xz; test.csv.xz with
            user,item; test_negatives.csv.xz with user,items: 99 ids separated by spaces), taken
            as it is; or a file for `read_interactions`, of which `hold_out_last` holds out.
        seed: draws the negatives of a file; a folder brings its own.

    Raises:
        DataRefused: see `read_interactions`; or the folder's parts are missing or don't agree.
    """
    path = Path(path)
    if path.is_dir():
        return _read_folder(path)
    name = path.name
    for suffix in _SUFFIXES:
        name = name.removesuffix(suffix)
    return hold_out_last(read_interactions(path), name, seed)


def hold_out_last(interactions: DataFrame, name: str, seed: int = 0) -> Benchmark:
    """Hold out each user's last interaction and draw 99 negatives she never interacted with.

    Last is by time, and among equal times (or without times) by row. A user isn't held out, but
    stays in the training part, if she has a single interaction or has left fewer than 99 items of
    the catalogue untouched. Negatives are drawn uniformly without replacement, for each user by
    herself: other users' rows don't change hers as long as the catalogue stays the same.

    Args:
        interactions: as `read_interactions` returns them.
        name: the benchmark's name.
        seed: of the negatives.

    Raises:
        DataRefused: nobody can be held out.
    """
    table = interactions.reset_index(drop=True)
    by_time = table.sort_values("time", kind="stable") if "time" in table else table
    catalogue = np.unique(table["item"].to_numpy())
    users = table.groupby("user")["item"]
    eligible = (users.size() > 1) & (users.nunique() <= len(catalogue) - NEGATIVES)
    last = by_time.drop_duplicates("user", keep="last").sort_values("user")
    last = last[last["user"].map(eligible).to_numpy(dtype=bool)]
    if last.empty:
        raise DataRefused(
            f"nobody can be held out: a user needs 2 interactions and {NEGATIVES} items she never "
            f"interacted with; the file has {len(catalogue)} items in all"
        )
    seen = {user: items.to_numpy() for user, items in users}
    negatives = [_negatives(seen[user], catalogue, seed, user) for user in last["user"]]
    return Benchmark(
        name=name,
        train=table.drop(index=last.index).reset_index(drop=True),
        test=last[["user", "item"]].reset_index(drop=True),
        negatives=np.stack(negatives),
    )


def _negatives(
    seen: NDArray[np.int64], catalogue: NDArray[np.int64], seed: int, user: int
) -> NDArray[np.int64]:
    unseen = np.ones(len(catalogue), dtype=bool)
    unseen[np.searchsorted(catalogue, seen)] = False
    random = np.random.default_rng([seed, user])
    chosen: NDArray[np.int64] = random.choice(catalogue[unseen], NEGATIVES, replace=False)
    return chosen


def _read_folder(folder: Path) -> Benchmark:
    train = read_interactions(folder / "train.csv.xz")
    test = read_interactions(folder / "test.csv.xz")[["user", "item"]]
    listed = _read_negatives(folder / "test_negatives.csv.xz")
    if test["user"].duplicated().any():
        raise DataRefused(f"{folder / 'test.csv.xz'}: every user may have one held-out item only")
    if set(listed) != set(test["user"]):
        raise DataRefused(f"{folder}: test and test_negatives don't name the same users")
    test = test.sort_values("user").reset_index(drop=True)
    negatives = np.stack([listed[user] for user in test["user"]])
    return Benchmark(folder.name, train, test, negatives)


def _read_negatives(path: Path) -> dict[int, NDArray[np.int64]]:
    table = _table(path, ("user", "items"))
    _check_ids(path, table, ("user",))
    listed: dict[int, NDArray[np.int64]] = {}
    for line, (user, text) in enumerate(zip(table["user"], table["items"], strict=True), start=2):
        words = str(text).split()
        if len(words) != NEGATIVES or not all(w.isdecimal() and len(w) <= 10 for w in words):
            raise DataRefused(f"{path}: line {line} doesn't list {NEGATIVES} item ids")
        items = np.array(words, dtype=np.int64)
        if items.max() > MAX_ID or int(user) in listed:
            raise DataRefused(f"{path}: line {line} has an id above {MAX_ID} or a user seen before")
        listed[int(user)] = items
    return listed


def _table(path: Path, required: tuple[str, ...]) -> DataFrame:
    """The known columns of a file under their own names; at least the required ones."""
    if not path.name.endswith(_SUFFIXES):
        raise DataRefused(f"{path}: expected a file that ends in {', '.join(_SUFFIXES)}")
    if not path.is_file():
        raise DataRefused(f"{path}: there is no such file")
    try:
        table = pd.read_parquet(path) if path.suffix == ".parquet" else _read_csv(path)
    except DataRefused:
        raise
    except pd.errors.EmptyDataError:
        raise DataRefused(f"{path}: the file is empty; expected a header and rows") from None
    except (OSError, ValueError, lzma.LZMAError, EOFError) as error:
        # The error's own text may quote the file's content.
        kind = type(error).__name__
        raise DataRefused(
            f"{path}: can't be read as {path.name.partition('.')[2]} ({kind}); check that the file "
            "is whole, of that format and readable by you"
        ) from None
    return _named(path, table, required)


def _read_csv(path: Path) -> DataFrame:
    table = pd.read_csv(path, low_memory=False, skipinitialspace=True)
    if not isinstance(table.index, pd.RangeIndex):
        # Pandas takes surplus fields for an index and shifts all columns.
        raise DataRefused(f"{path}: the rows have more fields than the header")
    return table


def _named(path: Path, table: DataFrame, required: tuple[str, ...]) -> DataFrame:
    table = table.rename(columns={name: str(name).strip().lower() for name in table.columns})
    table = table.rename(columns=_ALIASES)
    known = [*required, "value", "time"]
    for column in known:
        if list(table.columns).count(column) > 1:
            names = [column, *(alias for alias, name in _ALIASES.items() if name == column)]
            raise DataRefused(f"{path}: expected only one of the columns {', '.join(names)}")
    missing = [column for column in required if column not in table]
    if missing:
        raise DataRefused(
            f"{path}: column {' and '.join(missing)} missing; expected {', '.join(required)} "
            "(and optionally value, time) in the header"
        )
    if table.empty:
        raise DataRefused(f"{path}: the file has a header but no rows")
    return table[[column for column in known if column in table]].reset_index(drop=True)


def _numbered(table: DataFrame, columns: tuple[str, ...]) -> DataFrame:
    """The table with text ids replaced by their place among all ids of the column, sorted."""
    for column in columns:
        ids = table[column]
        texts = pd.to_numeric(ids, errors="coerce").isna()
        if ids.dtype == object and 2 * (texts & ids.notna()).sum() >= len(ids) > 0:
            codes, _ = pd.factorize(ids.astype("string"), sort=True)
            table = table.assign(**{column: pd.Series(codes, ids.index).where(ids.notna())})
    return table


def _check_ids(path: Path, table: DataFrame, columns: tuple[str, ...]) -> None:
    for column in columns:
        _check_finite(path, table, column)
        values = table[column].to_numpy()
        for wrong, what in (
            (values < 0, "negative"),
            (values > MAX_ID, f"larger than {MAX_ID}"),
            (values != np.floor(values), "not a whole number"),
        ):
            _refuse_rows(path, column, wrong, what)


def _check_finite(path: Path, table: DataFrame, column: str) -> None:
    values = table[column]
    _refuse_rows(path, column, values.isna().to_numpy(), "missing (NaN)")
    if values.dtype.kind not in "iuf":
        numbers = pd.to_numeric(values, errors="coerce")
        _refuse_rows(path, column, numbers.isna().to_numpy(), "not a number")
        raise DataRefused(
            f"{path}: column {column} holds {values.dtype}; expected numbers in 64 bits"
        )
    _refuse_rows(path, column, ~np.isfinite(values.to_numpy(dtype=np.float64)), "infinite")


def _refuse_rows(path: Path, column: str, wrong: NDArray[np.bool_], what: str) -> None:
    if wrong.any():
        raise DataRefused(
            f"{path}: column {column} is {what} in {int(wrong.sum())} rows, first in data row "
            f"{int(wrong.argmax()) + 1}; correct or remove them"
        )
