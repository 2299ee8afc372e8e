"""What others wrote is shown as text: it can't colour, hide, move or link anything."""

import json

import pytest

from coterie.commands import output
from coterie.commands.output import print_json, print_table, visible

HIDING = "\x1b[2J\x1b[8m harmless \x1b]8;;http://evil.example\x07here\x9b31m\u202e\u200b\r\x00"


def test_what_a_terminal_would_act_on_is_spelt_out() -> None:
    shown = visible(f"a plan\n{HIDING}é漢")
    assert shown.startswith("a plan\n\\x1b[2J")
    assert "é漢" in shown
    assert shown.replace("\n", "").isprintable()


def test_neither_tables_nor_lines_nor_json_let_it_through(
    capsys: pytest.CaptureFixture[str],
) -> None:
    print_table("[bold]t[/bold]", ["[link=http://evil.example]c[/link]"], [[f"[red]{HIDING}"]])
    output.console.print(f"[conceal]{HIDING}[/conceal]")
    output.errors.print(HIDING)
    print_json({"why": HIDING})
    told = capsys.readouterr()
    for text in (told.out, told.err):
        assert all(c.isprintable() or c == "\n" for c in text)
    assert "[conceal]" in told.out, "square brackets are text"
    assert json.loads(told.out[told.out.index("{") :]) == {"why": HIDING}
