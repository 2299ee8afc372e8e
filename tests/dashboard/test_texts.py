"""The catalogue says everything in every language, and pages use what it has."""

import ast
import re
from pathlib import Path
from string import Formatter

import pytest

import dashboard
from dashboard.texts import LANGUAGES, catalogue
from policies.accounting import ADJACENCY
from policies.operations import ALLOWED

ROOM = Path(dashboard.__file__).parent


@pytest.mark.parametrize("language", sorted(LANGUAGES))
def test_every_language_has_the_same_sentences_with_the_same_gaps(language: str) -> None:
    english, other = catalogue("en"), catalogue(language)
    assert set(other) == set(english)
    for key, said in english.items():
        assert _gaps(other[key]) == _gaps(said), key
        assert other[key].strip(), key


def test_every_sentence_that_a_page_names_is_in_the_catalogue() -> None:
    known = catalogue("en")
    for file in ROOM.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "text" and node.args:
                key = node.args[0]
                if isinstance(key, ast.Constant):
                    assert key.value in known, f"{file.name}: {key.value!r}"


def test_why_each_operation_is_safe_is_said_in_every_language() -> None:
    for reason in set(ALLOWED.values()):
        assert catalogue("en")[f"operations.{reason}"] == reason


def test_the_unit_of_every_epsilon_is_the_platforms() -> None:
    assert catalogue("en")["showing.unit"] == ADJACENCY


def test_chinese_sentences_are_chinese() -> None:
    for key, said in catalogue("zh").items():
        assert re.search("[\u4e00-\u9fff]", said), key


def _gaps(said: str) -> set[str]:
    return {name for _, name, _, _ in Formatter().parse(said) if name}
