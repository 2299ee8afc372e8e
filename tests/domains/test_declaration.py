"""Declaring a data set: everything public comes from here, and mistakes are named."""

from pathlib import Path

import pytest

from domains.declaration import Declaration, DeclarationError, catalogue_hash, read_catalogue

GOOD = """
[dataset]
name = "ratings"
population = "viewers"
columns = ["user", "item", "value"]
users = 30
items = 2
interactions_per_user = 5
value_min = 1.0
value_max = 5.0
catalogue = "catalogue.txt"
"""


def written(folder: Path, text: str = GOOD, catalogue: str = "a\nb\n") -> Path:
    (folder / "catalogue.txt").write_text(catalogue)
    (folder / "dataset.toml").write_text(text)
    return folder / "dataset.toml"


def test_a_declaration_reads_back_as_it_was_written(tmp_path: Path) -> None:
    found = Declaration.read(written(tmp_path))
    (tmp_path / "again.toml").write_text(found.to_toml())
    assert Declaration.read(tmp_path / "again.toml") == found
    assert found.item_ids == ("a", "b")
    assert (found.bounds.items, found.bounds.interactions) == (2, 5)


def test_what_is_public_names_no_file(tmp_path: Path) -> None:
    found = Declaration.read(written(tmp_path))
    assert found.public()["catalogue"] == catalogue_hash(["a", "b"])
    assert str(tmp_path) not in str(found.public())


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("items = 2", "items = 3", "declares 3 items, but .* has 2 lines"),
        ("users = 30", "users = 0", "users: .* greater than or equal to 1"),
        ("users = 30\n", "", "users: Field required"),
        ("users = 30", "users = 30\nusrs = 1", "usrs: Extra inputs"),
        ('"value"]', '"user"]', "each column once"),
        ('["user", ', "[", "must name 'user' and 'item'"),
        ("value_min = 1.0", "value_min = 9.0", "value_min must not be above value_max"),
        ("[dataset]", "[data]", r"no \[dataset\] table"),
        ("[dataset]", "[dataset", "can't be read"),
        ('name = "ratings"', 'name = "../etc"', "name: String should match"),
    ],
)
def test_a_mistake_is_named(tmp_path: Path, old: str, new: str, says: str) -> None:
    assert old in GOOD
    with pytest.raises(DeclarationError, match=says):
        Declaration.read(written(tmp_path, GOOD.replace(old, new, 1)))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a\n\nb\n", "line 2: empty"),
        ("a\nb\na\n", "line 3: the id is that of line 1"),
        ("", "is empty"),
    ],
)
def test_a_catalogue_has_distinct_ids(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "items.txt").write_text(text)
    with pytest.raises(DeclarationError, match=says):
        read_catalogue(tmp_path / "items.txt")


def test_the_catalogues_order_is_part_of_its_hash() -> None:
    assert catalogue_hash(["a", "b"]) != catalogue_hash(["b", "a"])
    assert catalogue_hash(["ab"]) != catalogue_hash(["a", "b"])
