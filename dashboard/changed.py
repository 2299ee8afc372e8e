"""What differs between a plan and the last one that was approved: in meaning, and in the source."""

import difflib
from collections.abc import Iterator

import streamlit as st

from dashboard.session import plain
from dashboard.showing import empty
from dashboard.texts import text
from dashboard.told import told_change
from policies.changes import changes
from policies.legible import visible
from policies.plan import Plan

_WRITTEN = ("name", "purpose", "population_note")
CODE_HEIGHT = 420
"""Pixels, beyond which code scrolls in its own box."""


def source_diff(before: Plan, after: Plan) -> str:
    """The sources of both plans' steps as one unified diff; empty if they are the same.

    What could hide or reorder text is written out.
    """
    old = {step.name: visible(step.source).splitlines() for step in before.steps}
    new = {step.name: visible(step.source).splitlines() for step in after.steps}
    return "\n".join(_differing(old, new))


def marked(before: Plan, after: Plan) -> list[str]:
    """Changes in meaning as lines of a diff: what was, what is, and the rest."""
    lines: list[str] = []
    for line in changes(before, after):
        lines += _as_words(line, before, after) or _as_values(line)
    return [visible(line[:2] + told_change(line[2:])) for line in lines]


def _as_words(line: str, before: Plan, after: Plan) -> list[str]:
    """A change of what the author wrote: her words may look like a change themselves."""
    for name in _WRITTEN:
        if line.startswith(f"{name.replace('_', ' ')}: "):
            what = line.partition(":")[0]
            return [f"- {what}: {getattr(before, name)}", f"+ {what}: {getattr(after, name)}"]
    return []


def _as_values(line: str) -> list[str]:
    what, arrow, new = line.partition(" -> ")
    if arrow:
        where, _, old = what.rpartition(": ")
        return [f"- {where}: {old}", f"+ {where}: {new}"]
    if sign := next((s for s in "+-" if f": {s} " in line), None):
        return [f"{sign} {line.replace(f': {sign} ', ': ', 1)}"]
    return [f"! {line}"]


def _differing(old: dict[str, list[str]], new: dict[str, list[str]]) -> Iterator[str]:
    for name in dict.fromkeys([*old, *new]):
        yield from difflib.unified_diff(
            old.get(name, []), new.get(name, []), f"{name} before", f"{name} now", lineterm="", n=3
        )


def draw_changes(before: Plan | None, after: Plan) -> None:
    """The changes in meaning, then the source's, highlighted."""
    if before is None:
        empty(text("request.no_previous"), text("request.no_previous_next"))
        return
    st.caption(plain(text("request.since", name=before.name, hash=before.hash[:16])))
    found = marked(before, after)
    st.markdown(f"**{text('request.meaning')}**")
    if found:
        st.code("\n".join(found), language="diff", wrap_lines=True)
    else:
        st.success(text("request.same_meaning"))
    st.markdown(f"**{text('request.source_changes')}**")
    difference = source_diff(before, after)
    if difference:
        draw_code(difference, "diff")
    else:
        st.success(text("request.same_source"))


def draw_source(plan: Plan) -> None:
    """Every step's source as its author gives it."""
    st.caption(text("request.source_about"))
    for step in plan.steps:
        st.markdown(f"**{plain(step.name)}**")
        draw_code(visible(step.source), "python")


def draw_code(code: str, language: str | None) -> None:
    """Code in a box that scrolls if it is long."""
    long = code.count("\n") > 18
    st.code(
        code or " ",
        language=language,
        line_numbers=language == "python",
        height=CODE_HEIGHT if long else "content",
    )
