"""The dashboard: sign in, and the pages of the role that the node says the account has.

Started by `coterie dashboard --domain NAME` or `--hub URL`. A page asks the node by public calls
only, and the node checks the role at each: leaving a page out is comfort, not protection.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from importlib import import_module
from typing import Any

import streamlit as st

from dashboard.options import Options, read_options
from dashboard.session import (
    Role,
    Session,
    plain,
    remember_pages,
    show_finished,
    sign_in,
    sign_out,
    signed_in,
    telling,
    watch_expiry,
)
from dashboard.texts import choose_language, text
from dashboard.times import moment
from network.hub import directory

PAGES: Mapping[Role, tuple[str, ...]] = {
    "owner": ("requests", "request", "budgets", "policy", "entries", "network", "account"),
    "scientist": ("datasets", "quote", "plans", "run", "comparison", "network", "account"),
    "auditor": ("ledgers", "entries", "report", "network", "account"),
}
"""Each role's pages in the order of the menu: modules of this room with `draw(session)`."""

HIDDEN = frozenset({"request"})
"""Pages that others lead to; they aren't in the menu."""

_CONTRAST = """<style>
[data-testid^="stBaseButton-primary"], [data-baseweb="tag"], [data-baseweb="tag"] span {
    color: light-dark(#ffffff, #0b1118) !important;
}
</style>"""
"""Dark words on the light colour of the dark theme, where Streamlit knows only white ones."""

ICONS = {
    "account": ":material/person:",
    "budgets": ":material/savings:",
    "comparison": ":material/compare_arrows:",
    "datasets": ":material/database:",
    "entries": ":material/list_alt:",
    "ledgers": ":material/verified_user:",
    "network": ":material/hub:",
    "plans": ":material/assignment:",
    "policy": ":material/gavel:",
    "quote": ":material/tune:",
    "report": ":material/summarize:",
    "request": ":material/fact_check:",
    "requests": ":material/inbox:",
    "run": ":material/monitoring:",
}


def main(arguments: Sequence[str]) -> None:
    """Draw the page that the browser asks for."""
    options = read_options(arguments)
    st.set_page_config(page_title=options.title, page_icon=":material/hub:", layout="wide")
    st.html(_CONTRAST)
    with st.sidebar:
        choose_language()
    options.trust_certificates()
    idle = timedelta(minutes=options.idle_minutes)
    session = signed_in(idle) or _sign_in_page(options)
    if session is None:
        return
    pages = {name: _page(name, session) for name in PAGES[session.role]}
    remember_pages(pages)
    page = st.navigation(list(pages.values()))
    with st.sidebar:
        _who(session)
    show_finished()
    with telling():
        page.run()
    st.fragment(watch_expiry, run_every=timedelta(seconds=30))(session, idle)


def _page(name: str, session: Session) -> Any:
    return st.Page(
        _drawing(name, session),
        title=text(f"pages.{name}"),
        icon=ICONS[name],
        url_path=name,
        visibility="hidden" if name in HIDDEN else "visible",
    )


def _drawing(name: str, session: Session) -> Callable[[], None]:
    """Draws a page; its module is imported only when somebody of its role opens it."""
    return lambda: import_module(f"dashboard.{name}").draw(session)


def _who(session: Session) -> None:
    st.text(session.email)
    where = ", ".join(session.nodes)
    st.caption(plain(text(f"shell.{session.role}", where=where)))
    st.caption(text("shell.expires", time=moment(session.expires)))
    if session.absent:
        st.warning(plain(text("shell.absent", names=", ".join(session.absent))))
    left, right = st.columns(2)
    left.button(text("shell.refresh"), width="stretch")
    right.button(text("shell.sign_out"), on_click=sign_out, width="stretch")


def _sign_in_page(options: Options) -> Session | None:
    """The form in place of every page; the session once it let somebody in."""
    place = st.empty()
    with place.container():
        show_finished()
        st.title(plain(options.title))
        st.write(text("signin.hub" if options.hub else "signin.domain"))
        cards: Any = None
        doubts: dict[str, str] = {}
        with telling():
            if options.hub is not None:
                listed = directory(options.hub)
                doubts = options.doubts(listed)
                cards = {name: card for name, card in listed.items() if name not in doubts}
        doubted = {name: text(f"signin.{why}") for name, why in sorted(doubts.items())}
        for name, why in doubted.items():
            st.error(plain(f"{name}: {why}"))
        if options.hub is not None and not cards:
            st.info(text("signin.nobody_listed"))
            return None
        session = None
        with telling():
            session = _sign_in_form(options, cards, doubted)
        st.caption(text("signin.about"))
    if session is not None:
        place.empty()
    return session


def _sign_in_form(options: Options, cards: Any, doubted: Mapping[str, str]) -> Session | None:
    with st.form("sign-in", width=480):
        email = st.text_input(text("signin.email"), autocomplete="username", max_chars=254)
        passwords = {
            name: st.text_input(
                text("signin.password_of", name=name) if cards else text("signin.password"),
                type="password",
                max_chars=1000,
                autocomplete="current-password",
                key=f"password-{name}",
            )
            for name in (cards or [options.domain])
        }
        submitted = st.form_submit_button(text("signin.button"), type="primary")
    return sign_in(options, email, passwords, cards, doubted) if submitted else None
