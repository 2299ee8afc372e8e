"""How long accounts on a node last: invitations expire, and the owner can end them.

Syft's own store has the accounts, their roles and hashed passwords; what it lacks is kept beside
it, by verify key, so that a key that was ended can't come back under another name.
"""

import json
import threading
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from domains.folder import write_private

MOST_DAYS = 3650


class AccountsError(ValueError):
    """A term that makes no sense, or an account that isn't there; the text says which."""


@dataclass(frozen=True)
class Term:
    """How long one account may call.

    Attributes:
        email: of the account when the term was set.
        until: when it expires, ISO 8601 in UTC.
        ended: why the owner ended it before; None while it lasts.
    """

    email: str
    until: str
    ended: str | None = None

    def why_ended(self, now: datetime) -> str | None:
        """A sentence for its holder if it's over."""
        if self.ended is not None:
            return "The owner ended this account. Ask her for a new invitation."
        if now >= datetime.fromisoformat(self.until):
            return f"This account expired at {self.until}. Ask the owner to renew it."
        return None


class Accounts:
    """The terms of a node's accounts, in a file that outlives restarts.

    An account without a term, such as the owner's own, lasts.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        found = json.loads(path.read_text()) if path.exists() else {}
        self._terms = {key: Term(**fields) for key, fields in found.items()}

    def why_ended(self, key: str) -> str | None:
        """Why the account with this verify key may no longer call, or None."""
        term = self._terms.get(key)
        return None if term is None else term.why_ended(datetime.now(UTC))

    def term(self, key: str) -> Term | None:
        return self._terms.get(key)

    def renew(self, key: str, email: str, days: int) -> Term:
        """Let an account last so many days from now; gives its term.

        Raises:
            AccountsError: not 1 to 3,650 days.
        """
        if type(days) is not int or not 1 <= days <= MOST_DAYS:
            raise AccountsError(f"An account lasts 1 to {MOST_DAYS} days.")
        until = datetime.now(UTC) + timedelta(days=days)
        return self._keep(key, Term(email[:254], until.isoformat(timespec="seconds")))

    def end(self, key: str, email: str, reason: str) -> Term:
        """End an account now."""
        now = datetime.now(UTC).isoformat(timespec="seconds")
        term = self._terms.get(key) or Term(email[:254], now)
        return self._keep(key, replace(term, ended=f"{now}: {reason[:500]}"))

    def _keep(self, key: str, term: Term) -> Term:
        with self._lock:
            terms = {**self._terms, key: term}
            write_private(
                self._path, json.dumps({k: asdict(t) for k, t in terms.items()}, indent=1)
            )
            self._terms = terms
        return term
