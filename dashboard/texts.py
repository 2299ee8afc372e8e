"""Every sentence of the pages, in the language that the reader chose, from one catalogue.

`texts/LANGUAGE.toml` has one table for each page; `text("requests.title")` reads its key `title`.
"""

import tomllib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import streamlit as st

LANGUAGES = {"en": "English", "zh": "中文"}
_CHOSEN = "language"
_FOLDER = Path(__file__).with_name("texts")


def text(key: str, /, **values: Any) -> str:
    """The sentence at `table.key`, with `{name}` filled in; others' words stay as they are.

    Give values that others wrote through `session.plain` where the element reads Markdown.

    Raises:
        KeyError: the catalogue has no such sentence, or a value is missing.
    """
    return catalogue(language())[key].format(**values)


def heading(column: str) -> str:
    """A table's column by its name in English; as it is where the catalogue doesn't have it."""
    return catalogue(language()).get(f"columns.{column}", column)


def language() -> str:
    """The reader's language: as chosen, else the browser's, else English."""
    chosen = st.session_state.get(_CHOSEN)
    return chosen if chosen in LANGUAGES else _of_browser()


def choose_language() -> None:
    """A selector, which remembers the choice for this session."""
    if _CHOSEN not in st.session_state:
        st.session_state[_CHOSEN] = _of_browser()
    # A widget's own value is dropped while a page doesn't show it; this one outlives pages.
    st.session_state[_CHOSEN] = st.session_state[_CHOSEN]
    st.selectbox(
        "Language · 语言", options=list(LANGUAGES), format_func=LANGUAGES.__getitem__, key=_CHOSEN
    )


@cache
def catalogue(language: str) -> Mapping[str, str]:
    """Every sentence of a language by `table.key`."""
    tables = tomllib.loads((_FOLDER / f"{language}.toml").read_text(encoding="utf-8"))
    return {f"{t}.{key}": said for t, table in tables.items() for key, said in table.items()}


def _of_browser() -> str:
    preferred = str(st.context.locale or "en").split("-")[0]
    return preferred if preferred in LANGUAGES else "en"
