"""What a node says in English, in the reader's language.

Nodes, ledgers and verifiers say why in English sentences of few forms. The catalogue has each form
in every language: what fits one keeps its figures and names, what fits none stays as it is, and so
do people's own words.
"""

import re
from collections.abc import Iterator
from functools import cache
from string import Formatter

from dashboard.texts import catalogue, language

_NESTED = frozenset({"rest", "next", "unit"})
"""Gaps that hold another such phrase."""
_REASONS, _CHANGES, _OFFERS = ("told.", "phrases."), ("changes.", "phrases."), ("phrases.",)


def told(words: str) -> str:
    """Why a rule refuses, or what an alert is about, in the reader's language."""
    return in_language(words, language(), _REASONS)


def told_refusal(reason: str) -> str:
    """A recorded refusal, "RULE: why"."""
    rule, colon, why = reason.partition(": ")
    return f"{rule}{colon}{told(why)}"


def told_offer(words: str) -> str:
    """What would fit instead."""
    return in_language(words, language(), _OFFERS)


def told_change(line: str) -> str:
    """A line of `policies.changes`."""
    return in_language(line, language(), _CHANGES)


def in_language(words: str, chosen: str, tables: tuple[str, ...] = _REASONS) -> str:
    """Lines of a node's in a language of the catalogue.

    Args:
        tables: of the catalogue; a whole line fits a form of the first, what it holds of any.
    """
    if chosen == "en":
        return words
    return "\n".join(_in(line, chosen, tables[:1], tables) for line in words.split("\n"))


def _in(line: str, chosen: str, here: tuple[str, ...], within: tuple[str, ...]) -> str:
    for table in here:
        for form, said in _forms(chosen, table):
            if found := form.fullmatch(line):
                gaps = found.groupdict().items()
                return said.format(
                    **{n: _in(v, chosen, within, within) if n in _NESTED else v for n, v in gaps}
                )
    return line


@cache
def _forms(chosen: str, table: str) -> tuple[tuple[re.Pattern[str], str], ...]:
    english, other = catalogue("en"), catalogue(chosen)
    return tuple(
        (_form(said), other[key]) for key, said in english.items() if key.startswith(table)
    )


def _form(said: str) -> re.Pattern[str]:
    return re.compile("".join(_parts(said)), re.DOTALL)


def _parts(said: str) -> Iterator[str]:
    for words, gap, _, _ in Formatter().parse(said):
        yield re.escape(words)
        if gap is not None:
            yield f"(?P<{gap}>.*?)"
