"""What an owner declares about a data set before anyone looks at a row of it.

Everything public derives from the declaration: shapes, divisors, ring widths, mocks. Rows outside
it are dropped when they are loaded, and counted for the owner only. In the domain's TOML:

    [dataset]
    name = "ratings"
    population = "viewers"            # whose budget this is, whatever the file is called
    description = "Films rated in 2024"
    columns = ["user", "item", "value", "time"]
    users = 3000                      # at most this many users
    items = 1682                      # lines of the catalogue
    interactions_per_user = 500       # the latest are used
    value_min = 1.0
    value_max = 5.0
    catalogue = "catalogue.txt"       # one item id a line, the same at every partner
"""

import hashlib
import tomllib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import tomli_w
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from policies.users import Bounds

Column = Literal["user", "item", "value", "time"]


class DeclarationError(ValueError):
    """The declaration or its catalogue can't be used; says which line and what is expected."""


class Declaration(BaseModel):
    """The declared facts of one data set.

    Attributes:
        name: what plans call the data set.
        population: whose interactions these are; a budget belongs to it, not to a file.
        columns: which columns the files have; "user" and "item" at least.
        users: upper bound on users; loading more is refused.
        items: number of items in the catalogue.
        interactions_per_user: upper bound on what one user adds; her latest are used.
        value_min, value_max: range of the "value" column; interactions outside are dropped.
        catalogue: file of item ids, one a line, relative to the declaration.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_. -]{0,63}$")]
    population: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_. -]{0,63}$")]
    description: Annotated[str, Field(max_length=10_000)] = ""
    columns: tuple[Column, ...] = ("user", "item")
    users: Annotated[int, Field(ge=1, le=2**31)]
    items: Annotated[int, Field(ge=1, le=2**24)]
    interactions_per_user: Annotated[int, Field(ge=1, le=1_000_000)]
    value_min: float = 1.0
    value_max: float = 1.0
    catalogue: Path

    @model_validator(mode="after")
    def _is_consistent(self) -> "Declaration":
        if not {"user", "item"} <= set(self.columns) or len(set(self.columns)) < len(self.columns):
            raise ValueError("columns must name 'user' and 'item', and each column once")
        if not self.value_min <= self.value_max:
            raise ValueError("value_min must not be above value_max")
        return self

    @classmethod
    def read(cls, path: Path) -> "Declaration":
        """Read the `[dataset]` table of a TOML file (other tables are left alone).

        Raises:
            DeclarationError: unreadable, a field is missing, unknown or out of range, or the
                catalogue isn't `items` distinct lines.
        """
        try:
            table = tomllib.loads(path.read_text(encoding="utf-8"))["dataset"]
            declaration = cls.model_validate(table)
        except (OSError, UnicodeError, RecursionError, tomllib.TOMLDecodeError) as error:
            raise DeclarationError(f"{path} can't be read: {error}") from None
        except KeyError:
            raise DeclarationError(f"{path} has no [dataset] table.") from None
        except ValidationError as error:
            raise DeclarationError(f"{path}: {_told(error)}") from None
        found = declaration.model_copy(update={"catalogue": path.parent / declaration.catalogue})
        if len(found.item_ids) != found.items:
            raise DeclarationError(
                f"{path} declares {found.items} items, "
                f"but {found.catalogue} has {len(found.item_ids)} lines."
            )
        return found

    def to_toml(self) -> str:
        """The `[dataset]` table as TOML text."""
        return tomli_w.dumps({"dataset": self.model_dump(mode="json")})

    @cached_property
    def item_ids(self) -> tuple[str, ...]:
        """Item ids by position; the position is the item's number in every tensor."""
        return read_catalogue(self.catalogue)

    @cached_property
    def catalogue_hash(self) -> str:
        """SHA-256 of the catalogue, hex; equal at all partners of a plan."""
        return catalogue_hash(self.item_ids)

    @property
    def bounds(self) -> Bounds:
        """The declared sizes that fix the shapes of all user tensors."""
        return Bounds(self.items, self.interactions_per_user, self.users)

    def public(self) -> dict[str, Any]:
        """What anyone may know of the data set: the declaration and the catalogue's hash."""
        facts = self.model_dump(mode="json", exclude={"catalogue"})
        return facts | {"catalogue": self.catalogue_hash}


def read_catalogue(path: Path) -> tuple[str, ...]:
    """Item ids of a catalogue file, one a line, in order; surrounding spaces don't count.

    Raises:
        DeclarationError: unreadable, empty, an empty line or an id that appears twice.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeError) as error:
        raise DeclarationError(f"The catalogue {path} can't be read: {error}") from None
    ids = tuple(line.strip() for line in lines)
    seen: dict[str, int] = {}
    for number, item in enumerate(ids, start=1):
        if not item:
            raise DeclarationError(f"{path}, line {number}: empty; expected one item id a line.")
        if item in seen:
            raise DeclarationError(
                f"{path}, line {number}: the id is that of line {seen[item]} already; "
                "each item may appear once."
            )
        seen[item] = number
    if not ids:
        raise DeclarationError(f"The catalogue {path} is empty; expected one item id a line.")
    return ids


def catalogue_hash(item_ids: Sequence[str]) -> str:
    """SHA-256 over the ids in order, each followed by a newline (UTF-8), hex."""
    return hashlib.sha256("".join(f"{item}\n" for item in item_ids).encode()).hexdigest()


def _told(error: ValidationError) -> str:
    problems = []
    for problem in error.errors():
        where = ".".join(str(part) for part in problem["loc"]) or "dataset"
        problems.append(f"{where}: {problem['msg']}")
    return "; ".join(problems)
