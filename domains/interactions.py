"""A partner's interactions: read from the owner's files, checked, kept as compact arrays by user.

Files in the data folder: any number of `interactions*` (the parts of one table, in order of their
names, so that a later month is appended by adding a file) and at most one `holdout*` with the item
held out for each user, which evaluation steps see and training steps don't.
"""

import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from domains.declaration import Declaration

_ALIASES = {"rating": "value", "timestamp": "time", "position": "time"}
_ARRAYS = ("indptr", "items", "values", "targets", "keys")


class InteractionsError(ValueError):
    """The owner's files can't be used; says which file, which line or column, what is expected.

    It is shown to the owner only and quotes no value.
    """


@dataclass(frozen=True)
class LoadReport:
    """What loading left out, for the owner only.

    Attributes:
        duplicates: rows that repeat a (user, item) pair; each pair counts once, its latest row.
        unknown_items: rows whose item isn't in the catalogue.
        out_of_range: rows whose value lies outside the declared range.
        shortened_users: users with more interactions than declared; their latest are kept.
        users: how many users are left.
        interactions: how many interactions are left.
    """

    duplicates: int
    unknown_items: int
    out_of_range: int
    shortened_users: int
    users: int
    interactions: int


@dataclass(frozen=True)
class Interactions:
    """Compressed rows by user.

    Attributes:
        names: user ids, sorted.
        indptr: int64 [users + 1]; user u has the interactions indptr[u] to indptr[u + 1].
        items: int64 [interactions], catalogue positions, oldest first for each user.
        values: float32 [interactions].
        targets: int64 [users], held-out catalogue position, -1 for none.
        keys: uint64 [users, 2], from each user's id alone (`user_keys`): whatever the engine picks
            for a user hangs on her key, never on her place in the list.
    """

    names: tuple[str, ...]
    indptr: NDArray[np.int64]
    items: NDArray[np.int64]
    values: NDArray[np.float32]
    targets: NDArray[np.int64]
    keys: NDArray[np.uint64]

    @property
    def users(self) -> int:
        return len(self.indptr) - 1

    def save(self, store: Path) -> None:
        """Write the arrays as .npy files of mode 0600 into a folder of mode 0700."""
        store.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name in _ARRAYS:
            with private_file(store / f"{name}.npy") as file:
                np.save(file, getattr(self, name), allow_pickle=False)
        with private_file(store / "users.json") as file:
            file.write(json.dumps(self.names).encode())

    @classmethod
    def load(cls, store: Path) -> Self:
        """Map what `save` wrote, read-only."""
        arrays = {
            name: np.load(store / f"{name}.npy", mmap_mode="r", allow_pickle=False)
            for name in _ARRAYS
        }
        return cls(tuple(json.loads((store / "users.json").read_text())), **arrays)


def user_keys(names: Iterable[str]) -> NDArray[np.uint64]:
    """The first 128 bits of each id's SHA-256: uint64 [users, 2]."""
    digests = b"".join(hashlib.sha256(name.encode()).digest()[:16] for name in names)
    return np.frombuffer(digests, dtype="<u8").reshape(-1, 2).astype(np.uint64)


def private_file(path: Path) -> BinaryIO:
    """A new file of mode 0600, open for writing."""
    path.unlink(missing_ok=True)
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")


def load_interactions(folder: Path, declaration: Declaration) -> tuple[Interactions, LoadReport]:
    """Read, check and sort a data set's files.

    Raises:
        InteractionsError: a missing column, an empty or negative id, NaN, an empty or unreadable
            file, or more users than declared.
    """
    table = _read_all(folder)
    position = {item: index for index, item in enumerate(declaration.item_ids)}
    table["position"] = table["item"].map(position)
    unknown = int(table["position"].isna().sum())
    table = table.dropna(subset=["position"])
    table, out_of_range = _within_range(table, declaration)
    if "time" in table:
        table = table.sort_values("time", kind="stable")
    before = len(table)
    table = table.drop_duplicates(["user", "item"], keep="last")
    duplicates = before - len(table)
    longest = table.groupby("user").size()
    shortened = int((longest > declaration.interactions_per_user).sum())
    table = table.groupby("user", sort=False).tail(declaration.interactions_per_user)
    table = table.sort_values("user", kind="stable")
    names, counts = np.unique(table["user"].to_numpy(dtype=str), return_counts=True)
    if len(names) > declaration.users:
        raise InteractionsError(
            f"The files have more users than the {declaration.users} declared. Raise `users` in "
            "dataset.toml; it is a public bound, so leave room."
        )
    if not len(names):
        raise InteractionsError(f"{folder} has no interaction with an item of the catalogue.")
    values = table["value"] if "value" in table else pd.Series(1.0, index=table.index)
    interactions = Interactions(
        names=tuple(str(name) for name in names),
        indptr=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        items=table["position"].to_numpy(dtype=np.int64),
        values=values.to_numpy(dtype=np.float32),
        targets=_targets(folder, names, position),
        keys=user_keys(str(name) for name in names),
    )
    report = LoadReport(
        duplicates, unknown, out_of_range, shortened, interactions.users, len(table)
    )
    return interactions, report


def _read_all(folder: Path) -> pd.DataFrame:
    files = sorted(folder.glob("interactions*"))
    if not files:
        raise InteractionsError(f"{folder} has no file interactions*.csv, .csv.xz or .parquet.")
    return pd.concat([_read(file) for file in files], ignore_index=True)


def _read(file: Path) -> pd.DataFrame:
    """One file with text columns user and item, and float columns value and time if there."""
    try:
        if file.suffix == ".parquet":
            table = pd.read_parquet(file)
        else:
            table = pd.read_csv(file, dtype=str, keep_default_na=True)
    except pd.errors.EmptyDataError:
        raise InteractionsError(f"{file} is empty; expected a header user,item.") from None
    except Exception as error:
        raise InteractionsError(
            f"{file} can't be read as a table ({type(error).__name__}); expected csv, csv.xz or "
            "parquet with columns user,item[,value][,time]."
        ) from None
    table = table.rename(columns=_ALIASES)
    for column in ("user", "item"):
        if column not in table:
            raise InteractionsError(
                f"{file} has no column '{column}'; it has: {', '.join(map(str, table.columns))}."
            )
        table[column] = _ids(file, table[column], column)
    if table.empty:
        raise InteractionsError(f"{file} has a header but no rows.")
    for column in ("value", "time"):
        if column in table:
            table[column] = _numbers(file, table[column], column)
    return table[[c for c in ("user", "item", "value", "time") if c in table]]


def _ids(file: Path, column: pd.Series, name: str) -> pd.Series:
    text: pd.Series = pd.Series(
        [str(value).strip() for value in column], index=column.index, dtype=object
    )
    missing = column.isna() | (text == "")
    negative = text.str.fullmatch(r"-\d+")
    huge = text.str.len() > 128
    for wrong, what in ((missing, "is empty"), (negative, "is negative"), (huge, "is too long")):
        if wrong.any():
            line = int(np.flatnonzero(wrong.to_numpy())[0]) + 2
            raise InteractionsError(
                f"{file}, line {line}: the {name} id {what}; expected a non-negative number or "
                "a name of at most 128 characters."
            )
    return text


def _numbers(file: Path, column: pd.Series, name: str) -> pd.Series:
    numbers = pd.to_numeric(column, errors="coerce").astype(float)
    wrong = ~np.isfinite(numbers.to_numpy())
    if wrong.any():
        line = int(np.flatnonzero(wrong)[0]) + 2
        raise InteractionsError(f"{file}, line {line}: {name} isn't a finite number.")
    return numbers


def _within_range(table: pd.DataFrame, declaration: Declaration) -> tuple[pd.DataFrame, int]:
    if "value" not in table or "value" not in declaration.columns:
        return table.drop(columns="value", errors="ignore"), 0
    inside = table["value"].between(declaration.value_min, declaration.value_max)
    return table[inside], int((~inside).sum())


def _targets(folder: Path, names: NDArray[np.str_], position: dict[str, int]) -> NDArray[np.int64]:
    targets = np.full(len(names), -1, dtype=np.int64)
    files = sorted(folder.glob("holdout*"))
    if len(files) > 1:
        raise InteractionsError(f"{folder} has several holdout files; expected one.")
    for file in files:
        held = _read(file).drop_duplicates("user", keep="last")
        row = {name: index for index, name in enumerate(names)}
        for user, item in zip(held["user"], held["item"], strict=True):
            if user in row and item in position:
                targets[row[user]] = position[item]
    return targets


def describe(report: LoadReport) -> str:
    """The report in one line."""
    return ", ".join(f"{name.replace('_', ' ')} {count}" for name, count in asdict(report).items())
