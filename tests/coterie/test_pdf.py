"""A report's PDF holds what the page holds, whatever people wrote into it."""

import html
import re
from dataclasses import replace

from coterie.auditor import DomainAlert
from coterie.pdf import as_pdf, blocks
from coterie.report import network_report
from policies.alerts import Alert
from tests.dashboard.test_auditor_pages import FOUND

WHEN = "2026-11-28 08:00:00"


def words_of(marked: str) -> str:
    """Text without marks and spaces."""
    return re.sub(r"\s", "", html.unescape(re.sub("<[^>]*>", "", marked)))


def test_every_word_of_the_page_is_in_the_pdf() -> None:
    page = network_report(FOUND, "eve@audit.example", WHEN)
    body = page[page.index("<h1>") :]
    said = [
        words_of(words)
        for block in blocks(page)
        for words in (block.words, *(cell[1] for row in block.rows for cell in row))
    ]
    assert "".join(said) == words_of(body)
    assert [block.bad for block in blocks(page) if "BAD" in block.words] == [True]


def test_a_report_is_a_pdf_of_as_many_pages_as_it_takes() -> None:
    short = as_pdf(network_report(FOUND, "eve@audit.example", WHEN))
    long = as_pdf(network_report(replace(FOUND, domains=FOUND.domains * 20), "eve", WHEN))
    assert short.startswith(b"%PDF-")
    assert short.rstrip().endswith(b"%%EOF")
    assert pages(long) > pages(short) >= 1


def test_hostile_long_and_foreign_words_are_set_as_text() -> None:
    hostile = "<b>x</b></para> &amp; 预算 مرحبا \U0001f9ff \x00" + "x" * 10_000
    alert = DomainAlert("east", Alert("cap raised", "人群", hostile, tuple(range(99))))
    page = network_report(replace(FOUND, alerts=(alert,)), "eve", WHEN)
    (words,) = [
        cell[1] for block in blocks(page) for row in block.rows for cell in row if "xxx" in cell[1]
    ]
    assert words.startswith("&lt;b&gt;x&lt;/b&gt;&lt;/para&gt; &amp;amp; <font ")
    assert "&lt;U+1F9FF&gt;" in words
    assert pages(as_pdf(page)) > 1


def pages(pdf: bytes) -> int:
    return len(re.findall(rb"/Type /Page\b", pdf))
