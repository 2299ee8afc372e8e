"""Who calls: the accounts of a server by their keys, and logins with a password."""

import json
import secrets
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import bcrypt
import structlog
from fastapi import HTTPException, Request
from syft.server.credentials import SyftVerifyKey, UserLoginCredentials
from syft.server.server import Server
from syft.service.context import UnauthedServiceContext
from syft.service.response import SyftError
from syft.service.user.user_roles import ServiceRole
from syft.types.errors import SyftException

from network.backoff import LoginBackoff
from network.limits import Limits, block_of
from network.tls import is_local

_FORWARDED = ("forwarded", "via", "x-forwarded-for", "x-forwarded-proto", "x-real-ip")
_NOBODY = bcrypt.hashpw(secrets.token_bytes(16), bcrypt.gensalt(12))

_log = structlog.get_logger("coterie.gate")


class Members:
    """The accounts that may call, and how they log in.

    Args:
        memory: the folder of `logins.db`.
        why_ended: a sentence if the account with this verify key may no longer call.
    """

    def __init__(
        self,
        server: Server,
        memory: Path,
        limits: Limits,
        why_ended: Callable[[str], str | None],
    ) -> None:
        self._server, self._why_ended = server, why_ended
        self._backoff = LoginBackoff(memory / "logins.db", limits)
        self._members: dict[str, tuple[SyftVerifyKey, ServiceRole]] = {}
        self._changing_members = threading.Lock()

    @contextmanager
    def changing(self) -> Iterator[None]:
        """While accounts change none is looked up, and what was known of them is forgotten."""
        with self._changing_members:
            try:
                yield
            finally:
                self._members.clear()

    def found(self, key: str) -> tuple[SyftVerifyKey, ServiceRole]:
        """The account with this verify key; kept until a call changes accounts, for its speed."""
        key = key.lower()
        found = self._members.get(key) or self._look_up(key)
        why = self._why_ended(key)
        if why is not None:
            raise HTTPException(401, why)
        return found

    def _look_up(self, key: str) -> tuple[SyftVerifyKey, ServiceRole]:
        try:
            verify_key = SyftVerifyKey.from_string(key)
        except Exception:
            raise HTTPException(401, "Not an Ed25519 key.") from None
        with self._changing_members:
            if not self._server.services.user.stash.verify_key_exists(verify_key).unwrap():
                raise HTTPException(
                    401, "This key has no account here. Ask the owner for an invitation."
                )
            found = verify_key, self._server.get_role_for_credentials(verify_key)
            self._members[key] = found
        return found

    def log_in(self, body: dict[str, Any], address: str) -> Any:
        """Check a password; wrong ones make the account and the address wait."""
        email, password = _text_in(body, "email"), _text_in(body, "password")
        with self._backoff.attempt(
            f"account {email[:254].lower()}", f"address {block_of(address)}"
        ) as passed:
            account = self._account_of(email, password)
            if account is None:
                _log.warning("login refused", address=address)
                return SyftError(message="wrong email or password.")
            passed()
            why = self._why_ended(str(account.signing_key.verify_key))
            return SyftError(message=why) if why is not None else account

    def _account_of(self, email: str, password: str) -> Any:
        """Takes as long for an unknown email as for a wrong password."""
        users = self._server.services.user
        credentials = UserLoginCredentials(email=email, password=password)
        context = UnauthedServiceContext(server=self._server, login_credentials=credentials)
        try:
            users.stash.get_by_email(users.root_verify_key, email=email).unwrap()
        except SyftException:
            bcrypt.checkpw(password.encode()[:72], _NOBODY)
            return None
        try:
            return users.exchange_credentials(context=context).value
        except (SyftException, ValueError) as error:
            _log.info("login failed", error=type(error).__name__)
            return None


def require_private_channel(request: Request) -> None:
    """An answer to a login holds the account's signing key: it may not pass in clear.

    Raises:
        HTTPException: neither encrypted nor from this machine itself. A local proxy that isn't
            declared would make every caller look local, so its headers count as being one.
    """
    if request.scope["scheme"] == "https":
        return
    forwarded = any(name in request.headers for name in _FORWARDED)
    if is_local(address_of(request)) and not forwarded:
        return
    raise HTTPException(
        403,
        "Nobody logs in over an unencrypted line: use the node's https:// address. Behind a "
        "TLS proxy, declare it: proxies in domain.toml, see docs/security.md.",
    )


def address_of(request: Request) -> str:
    return request.client.host if request.client else ""


def json_object(blob: bytes | bytearray) -> dict[str, Any]:
    try:
        body = json.loads(blob)
    except (ValueError, RecursionError):
        raise HTTPException(422, "Send a JSON object.") from None
    if not isinstance(body, dict):
        raise HTTPException(422, "Send a JSON object.")
    return body


def _text_in(body: dict[str, Any], field: str) -> str:
    """A field that is text and can be written down: JSON can spell halves of characters, and
    Postgres has no place for a zero."""
    value = body.get(field)
    try:
        if isinstance(value, str) and value.encode() and "\0" not in value:
            return value
    except UnicodeEncodeError:
        pass
    raise HTTPException(422, "Send email and password as text.")
