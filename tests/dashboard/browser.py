"""A real browser on a real dashboard process, whose line to the node can be cut."""

import os
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from coterie.home import Home
from coterie.pages import Place, dashboard_command
from coterie.processes import free_ports, start, stop

CHROMIUM = Path("/usr/bin/chromium")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip
PATIENCE_MS = 120_000
_FOCUSED = """() => {
    const at = document.activeElement
    const labels = [...(at.labels ?? [])].map(label => label.innerText)
    // The page's main part takes the focus too, and would say everything.
    const own = at.matches("button, a, [role=radio], [role=tab]") ? at.innerText : ""
    const said = [at.ariaLabel, ...labels, own, at.getAttribute("placeholder")]
    return [said.filter(Boolean).join(" "), at.getAttribute("role") ?? at.tagName.toLowerCase()]
}"""
UNNAMED = """() => [...document.querySelectorAll("input, textarea, select, a")]
    .filter(each => each.checkVisibility() && !each.closest("[aria-hidden=true]"))
    .filter(each => !(each.ariaLabel || each.labels?.length || each.innerText?.trim()
        || each.title || each.getAttribute("aria-labelledby")))
    .map(each => each.outerHTML.slice(0, 200))"""
"""Fields and links that a screen reader can't name."""
FAINT = """() => {
    const channels = words => words.match(/[\\d.]+/g).map(Number)
    const over = (top, below) => top.slice(0, 3).map((c, i) => {
        const part = top[3] ?? 1
        return c * part + below[i] * (1 - part)
    })
    const light = rgb => rgb.map(c => c / 255)
        .map(c => c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
        .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0)
    const behind = element => {
        const stack = []
        for (let at = element; at; at = at.parentElement)
            stack.push(channels(getComputedStyle(at).backgroundColor))
        return stack.reverse().reduce((below, top) => over(top, below), [255, 255, 255])
    }
    const found = []
    for (const element of document.querySelectorAll("[data-testid=stApp] *")) {
        const own = [...element.childNodes].some(n => n.nodeType === 3 && n.data.trim())
        const style = getComputedStyle(element)
        if (!own || !element.checkVisibility({opacityProperty: true}) || element.closest("svg"))
            continue
        const left = "[disabled], [aria-hidden=true], [data-testid=stIconMaterial], code,"
            + "[data-testid=stSliderThumbValue]"  // it stands beside its parent, not on it
        if (element.closest(left))
            continue
        const below = behind(element), ink = over(channels(style.color), below)
        const [high, low] = [light(ink), light(below)].sort((a, b) => b - a)
        const ratio = (high + 0.05) / (low + 0.05)
        const size = parseFloat(style.fontSize)
        if (ratio < (size >= 24 || (size >= 18.6 && style.fontWeight >= 700) ? 3 : 4.5))
            found.push(`${ratio.toFixed(2)} ${element.innerText.slice(0, 60)}`)
    }
    return [...new Set(found)]
}"""
"""Words that stand out less than WCAG 2.2 AA asks (1.4.3: 4.5 to 1; large ones 3 to 1).

Highlighted code is left out: Streamlit lets nobody set its colours."""
_DESCRIBED = """() => [...document.querySelectorAll("[data-testid=stVegaLiteChart]")]
    .every(chart => [chart, ...chart.querySelectorAll("*")]
        .some(each => each.matches("[role^=graphics][aria-label]")))"""
SCREENSHOTS = "COTERIE_SCREENSHOTS"
"""Environment variable: the folder that screenshots are kept in."""


@dataclass
class Line:
    """Forwards one TCP port to a node until it is cut."""

    url: str
    port: int = field(init=False)

    def __post_init__(self) -> None:
        where = urlsplit(self.url)
        self._to = (str(where.hostname), int(where.port or 80))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._open: list[socket.socket] = []
        self._garbled = False
        threading.Thread(target=self._accept, daemon=True).start()

    def garble(self) -> None:
        """Answer every further connection with a page that is no answer of a node's."""
        self._garbled = True
        self._hang_up()

    def cut(self) -> None:
        """Close the port and every connection: to its caller the node is down."""
        # A thread waits in accept(); closing alone wouldn't wake it.
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._hang_up()

    def _hang_up(self) -> None:
        for each in self._open:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                caller, _ = self._listener.accept()
                if self._garbled:
                    threading.Thread(target=_answer_nonsense, args=(caller,), daemon=True).start()
                    continue
                node = socket.create_connection(self._to)
                self._open += [caller, node]
                for source, target in ((caller, node), (node, caller)):
                    threading.Thread(target=_pump, args=(source, target), daemon=True).start()


def _answer_nonsense(caller: socket.socket) -> None:
    with suppress(OSError), caller:
        caller.recv(65536)
        caller.sendall(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 19\r\n"
            b"Connection: close\r\n\r\n<h1>Maintenance</h1>"
        )


def _pump(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)


@contextmanager
def served(home: Home, name: str, folder: Path, base_path: str = "") -> Iterator[tuple[str, Line]]:
    """One partner's dashboard in its own process; gives its address and its line to the node."""
    command = dashboard_command(home, name, None, Place(base_path=base_path))
    line = Line(command[command.index("--url") + 1])
    (port,) = free_ports(1)
    place = Place(port=port, base_path=base_path)
    command = dashboard_command(home, name, None, place)
    command[command.index("--url") + 1] = f"http://127.0.0.1:{line.port}"
    files = folder / "dashboard.pid", folder / "dashboard.log"
    start("dashboard", command, *files, "127.0.0.1", port, f"{place.address}/_stcore/health")
    try:
        yield place.address, line
    finally:
        line.cut()
        stop("dashboard", files[0])


@contextmanager
def chromium() -> Iterator[Any]:
    """Debian's Chromium, or the test is skipped."""
    if not CHROMIUM.exists():
        pytest.skip(f"needs Debian's chromium at {CHROMIUM}: apt install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as engine:
        browser = engine.chromium.launch(executable_path=str(CHROMIUM), args=list(FLAGS))
        yield browser
        browser.close()


@dataclass
class Visitor:
    """One browser tab of somebody, with every dialog and console error it met."""

    page: Any
    folder: Path
    dialogs: list[str] = field(default_factory=list)

    @classmethod
    def open(cls, browser: Any, address: str, folder: Path, **context: Any) -> "Visitor":
        page = browser.new_context(viewport={"width": 1280, "height": 900}, **context).new_page()
        page.set_default_timeout(PATIENCE_MS)
        visitor = cls(page, folder)
        page.on("dialog", visitor._note)
        page.goto(address, timeout=PATIENCE_MS)
        return visitor

    def _note(self, dialog: Any) -> None:
        self.dialogs.append(dialog.message)
        dialog.dismiss()

    def sign_in(self, email: str, password: str) -> None:
        self.page.get_by_label("Email").fill(email)
        self.page.get_by_label("Password", exact=True).fill(password)
        self.page.get_by_role("button", name="Sign in").click()
        self.page.get_by_role("button", name="Sign out").wait_for()
        self.settle()

    def menu(self) -> list[str]:
        """The titles of the pages that the menu offers, without their icons' names."""
        links = self.page.get_by_test_id("stSidebarNavLink")
        return [said.split("\n")[-1] for said in links.all_inner_texts()]

    def go(self, title: str) -> None:
        self.page.get_by_test_id("stSidebarNav").get_by_role("link", name=title).click()
        self.page.get_by_role("heading", name=title, exact=True).first.wait_for()
        self.settle()

    def open_request(self, plan_hash: str) -> None:
        self.go("Requests")
        main = self.page.get_by_test_id("stMain")
        main.get_by_role("link", name=re.compile(plan_hash[:8])).click()
        self.page.get_by_text(plan_hash).first.wait_for()
        self.settle()

    def open_decided(self, plan_hash: str) -> None:
        self.go("Requests")
        self.page.get_by_label("Look at a decided plan").fill(plan_hash[:8])
        self.page.get_by_role("option", name=re.compile(plan_hash[:8])).click()
        self.page.get_by_test_id("stMain").get_by_role("link", name=re.compile(r"\bOpen$")).click()
        self.page.get_by_text(plan_hash).first.wait_for()
        self.settle()

    def tab_to(self, name: str, role: str = "") -> None:
        """Press Tab until what has the focus is called so, as a screen reader would say it."""
        for _ in range(300):
            self.page.keyboard.press("Tab")
            found, its = self.page.evaluate(_FOCUSED)
            if name in found and role in its:
                return
        raise AssertionError(f"Tab doesn't reach {name!r}")

    def choose_file(self, file: Path) -> None:
        """Choose a file, and wait until it has arrived: a click that is faster goes without it."""
        self.page.locator("input[type=file]").set_input_files(file)
        self.page.get_by_role("button", name=f"Remove {file.name}").wait_for()

    def choose_row(self, number: int) -> None:
        """Tick a row of the page's first table, from 1; 0 is its heading: all rows."""
        table = self.page.get_by_test_id("stDataFrame").first
        table.locator("canvas [role=gridcell]").first.wait_for(state="attached")
        table.click(position={"x": 18, "y": 18 + 35 * number})
        table.locator("canvas tr[aria-selected=true]").first.wait_for(state="attached")

    def settle(self) -> None:
        """Until the page's script, of which something new is in sight, has run to its end.

        Right after a click it may not have begun: wait for what the click changes first.
        """
        self.page.wait_for_function(
            "() => document.querySelector('[data-testid=stApp]')"
            "?.dataset.testScriptState === 'notRunning'"
        )

    def text(self) -> str:
        return str(self.page.get_by_test_id("stMain").inner_text())

    def headings(self) -> list[str]:
        """The main part's headings in order, as their tags: H1, H2."""
        found = self.page.get_by_test_id("stMain").locator("h1, h2, h3, h4, h5, h6")
        return [str(tag) for tag in found.evaluate_all("all => all.map(e => e.tagName)")]

    def described(self) -> None:
        """Until every chart is drawn, and says to a screen reader what it shows."""
        self.page.wait_for_function(_DESCRIBED)

    def sideways(self) -> int:
        """Pixels that the page is wider than its window."""
        root = "document.documentElement"
        return int(self.page.evaluate(f"{root}.scrollWidth - {root}.clientWidth"))

    def photograph(self, name: str, width: int = 1280) -> None:
        """The whole page as NAME.png, in the folder of screenshots."""
        self.settle()
        self.page.set_viewport_size({"width": width, "height": 900})
        if width < 768:  # the menu slides away
            self.page.wait_for_function(
                "() => (document.querySelector('[data-testid=stSidebar]')"
                "?.getBoundingClientRect().right ?? 0) <= 0"
            )
        height = self.page.evaluate("document.querySelector('[data-testid=stMain]').scrollHeight")
        self.page.set_viewport_size({"width": width, "height": min(int(height) + 40, 5000)})
        self.page.wait_for_load_state("networkidle")
        self.page.screenshot(path=str(self.folder / f"{name}.png"))
        self.page.set_viewport_size({"width": 1280, "height": 900})


def screenshots(otherwise: Path) -> Path:
    """Where screenshots go: the folder in `COTERIE_SCREENSHOTS`, or this one."""
    folder = Path(os.environ.get(SCREENSHOTS) or otherwise)
    folder.mkdir(parents=True, exist_ok=True)
    return folder
