"""One authenticated line to one node: signed Syft calls over HTTP, answers checked before reading.

Answers must be signed by the node key this client has pinned; they are read by the strict reader.
"""

import json
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import requests
from syft.client.api import SyftAPICall, SyftAPIData
from syft.serde.serialize import _serialize
from syft.server.credentials import SyftSigningKey
from syft.service.response import SyftError, SyftSuccess
from syft.service.user.user import UserPrivateKey
from syft.types.uid import UID

from network.answers import MAX_ANSWER_BYTES, Answer, AnswerRefused, ask, node_key_in, pin_node
from network.envelope import BytesRefused, open_envelope
from network.parts import Parts
from network.reaching import why_unreached
from network.reader import read
from network.reader_names import ANSWERS
from network.replay import ISSUED
from network.streams import STREAMS, ComingOctets, Refused, Sink, call_parts, read_answer
from network.tls import keeps_secrets, trust

API = "/api/v2"

CALL_TIMEOUT_S = 600.0
CONNECT_TIMEOUT_S = 5.0
LOGIN_TIMEOUT_S = 60.0
_TRIES_WHEN_BUSY = 5
_KEPT_IDLE_S = 2.0
"""A node closes a connection that was idle for 5 s; a call must not meet that."""
_UNNAMED = "A node"
"""One that hasn't said its name yet."""
_MAX_LOGIN_BYTES = 2**16
"""Of a node's metadata, or of its answer to a login."""


class NodeUnreachable(Exception):
    """A node did not answer: it is down, or the address is wrong."""

    def __init__(self, name: str, url: str, why: str) -> None:
        at = "NAME" if name == _UNNAMED else name
        super().__init__(
            f"{name} at {url} does not answer ({why}). Is it up? coterie domain status {at}"
        )
        self.name = name
        self.why = why


class NodeRefused(Exception):
    """A node answered, and the answer is no; the text is the node's own reason."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(reason)
        self.name = name


class LoginFailed(Exception):
    """The node did not accept this account."""


@dataclass
class Traffic:
    """Bytes this client sent to and received from a node, envelopes included."""

    sent: int = 0
    received: int = 0


class NodeClient:
    """Calls a node's `coterie.*` methods as one of its accounts.

    Args:
        name: what to call the node in messages.
        url: `http://HOST:PORT`.
        key: the account's Syft signing key.
        server_uid: the node's Syft uid.
        node_key: the node's Ed25519 verify key, 64 hex characters; answers must carry it.
    """

    def __init__(
        self, name: str, url: str, key: SyftSigningKey, server_uid: UID, node_key: str
    ) -> None:
        self.name = name
        self.url = url
        self.node_key = node_key
        self.server_uid = server_uid
        self.traffic = Traffic()
        self._key = key
        self._sessions = threading.local()

    @property
    def verify_key(self) -> str:
        """The account's verify key, 64 hex characters."""
        return str(self._key.verify_key)

    def call(self, method: str, timeout_s: float = CALL_TIMEOUT_S, **arguments: Any) -> Any:
        """Call `coterie.METHOD` and return what it answers; see `call_syft`."""
        return self.call_syft(f"coterie.{method}", timeout_s, **arguments)

    def read(self, method: str, **arguments: Any) -> Any:
        """Call `coterie.METHOD` and return the value of the JSON that it answers.

        Raises:
            NodeUnreachable, NodeRefused: see `call_syft`; also if what it answers isn't JSON.
        """
        answer = self.call(method, **arguments)
        try:
            return json.loads(answer)
        except (ValueError, TypeError, RecursionError):
            raise NodeRefused(
                self.name, f"{self.name}: coterie.{method} answered something else than JSON."
            ) from None

    def call_syft(self, path: str, timeout_s: float = CALL_TIMEOUT_S, **arguments: Any) -> Any:
        """Call any Syft service path this account may call and return what it answers.

        Raises:
            NodeUnreachable: no answer within the time.
            NodeRefused: the node's own refusal, in its words.
        """
        sent = {**arguments, ISSUED: int(time.time())}
        call = SyftAPICall(server_uid=self.server_uid, path=path, args=[], kwargs=sent)
        blob = _serialize(call.sign(self._key), to_bytes=True)
        answer = self._post(f"{API}/api_call", blob, timeout_s)
        return self._value_of(answer.content)

    def stream(
        self,
        method: str,
        timeout_s: float = CALL_TIMEOUT_S,
        into: Sink | None = None,
        most: int = MAX_ANSWER_BYTES,
        **arguments: Any,
    ) -> Any:
        """Call `coterie.METHOD` as a signed octet stream; see `network.streams`.

        Args:
            into: a file to write the answer's octets to as they come. Unless this returns, they
                are not the node's.
            most: bytes of the longest answer that is taken.
            arguments: text, integers, and one uint8 array at most.

        Returns:
            Text, or uint8 [n]; with a file, the number of octets.

        Raises:
            NodeUnreachable: no answer within the time.
            NodeRefused: the node's own refusal, in its words.
        """
        server, key = str(self.server_uid), self._key.signing_key
        blob = call_parts(key, server, f"coterie.{method}", arguments)
        coming = None if into is None else ComingOctets(into)
        try:
            answer = self._post(f"{STREAMS}/{method}", blob, timeout_s, coming, most)
            if into is None or coming is None:
                return read_answer(answer.content)
            octets = coming.octets()
            into.sealed(answer.parts[1:])
            return octets
        except Refused as error:
            raise NodeRefused(self.name, str(error)) from None
        except BytesRefused as error:
            raise NodeRefused(self.name, f"{self.name}: unreadable answer. {error}") from None

    def too_late(self, deadline_s: float) -> NodeUnreachable:
        """What to say when the node is given up after a deadline."""
        given = f"{round(deadline_s, 1):g} s"
        return NodeUnreachable(self.name, self.url, f"nothing whole within {given}")

    def _post(
        self,
        path: str,
        blob: bytes | Parts,
        timeout_s: float,
        coming: ComingOctets | None = None,
        most: int = MAX_ANSWER_BYTES,
    ) -> Answer:
        for _ in range(_TRIES_WHEN_BUSY):
            answer = self._ask(path, blob, timeout_s, coming, most)
            if answer.status != 429:
                break
            time.sleep(1.0)
        if answer.status != 200:
            raise NodeRefused(self.name, f"{self.name}: {answer.excerpt}")
        if not answer.is_from(self.node_key):
            raise NodeRefused(self.name, f"{self.name}: the answer is not signed by its known key.")
        return answer

    def _ask(
        self,
        path: str,
        blob: bytes | Parts,
        timeout_s: float,
        coming: ComingOctets | None,
        most: int,
    ) -> Answer:
        try:
            answer = ask(
                self._session(),
                "POST",
                self.url + path,
                blob,
                timeout=(CONNECT_TIMEOUT_S, timeout_s),
                into=None if coming is None else coming.take,
                most=most,
            )
        except requests.ReadTimeout:
            raise self.too_late(timeout_s) from None
        except requests.RequestException as error:
            raise NodeUnreachable(self.name, self.url, why_unreached(error)) from None
        except AnswerRefused as error:
            raise NodeRefused(self.name, f"{self.name}: {error}") from None
        self.traffic.sent += len(blob)
        self.traffic.received += answer.size
        return answer

    def _session(self) -> requests.Session:
        """This thread's; its connection is kept for as long as the node surely keeps it too."""
        now = time.monotonic()
        if now - getattr(self._sessions, "used", -_KEPT_IDLE_S) >= _KEPT_IDLE_S:
            self._sessions.session = requests.Session()
        self._sessions.used = now
        session: requests.Session = self._sessions.session
        return session

    def _value_of(self, answer: bytes) -> Any:
        try:
            envelope = open_envelope(answer)
            if envelope.key.hex() != self.node_key:
                raise BytesRefused("It is not signed by the node's known key.")
            result = read(envelope.message, ANSWERS)
        except BytesRefused as error:
            raise NodeRefused(self.name, f"{self.name}: unreadable answer. {error}") from None
        if isinstance(result, SyftAPIData):
            result = result.data
        if isinstance(result, SyftError):
            raise NodeRefused(self.name, str(result.message))
        return result.value if isinstance(result, SyftSuccess) else result


def log_in(
    url: str,
    email: str,
    password: str,
    pinned_key: str | None = None,
    certificate: str | None = None,
) -> NodeClient:
    """Log in to a node with a Syft account.

    Args:
        pinned_key: the node key this caller knows; without it the first answer's is taken.
        certificate: the one this node shows, or its authority's, as PEM; without it the one that
            was given before, or what the system trusts.

    Raises:
        NodeUnreachable: nothing answers at the address.
        LoginFailed: wrong email or password, another node answers than the pinned one, or the
            password would leave this machine unencrypted.
    """
    url = url.rstrip("/")
    if not keeps_secrets(url):
        raise LoginFailed(f"{url} isn't encrypted; your password isn't sent. Use https://.")
    if certificate is not None:
        trust(url, certificate)
    metadata = _metadata_of(url, pinned_key)
    name, node_key = str(metadata["name"]), str(metadata["verify_key"])
    pin_node(url, node_key)
    body = json.dumps({"email": email, "password": password}).encode()
    answer = _asked(name, "POST", f"{url}{API}/login", body, json_body=True)
    if answer.status == 429:
        raise LoginFailed(f"{name} at {url}: {answer.excerpt}")
    if answer.status == 403 and answer.is_from(node_key):
        raise LoginFailed(f"{name} at {url}: {answer.excerpt}")
    if answer.status != 200 or not answer.is_from(node_key):
        raise LoginFailed(f"{name} at {url} refused the login of {email}.")
    try:
        account = read(answer.content, ANSWERS)
    except BytesRefused as error:
        raise LoginFailed(f"{name} at {url}: unreadable answer. {error}") from None
    if not isinstance(account, UserPrivateKey):
        why = account.message if isinstance(account, SyftError) else "not an account"
        raise LoginFailed(f"{name} at {url} refused the login of {email}: {why}")
    uid = UID(value=UUID(str(metadata["id"])))
    return NodeClient(name, url, account.signing_key, uid, node_key)


def _metadata_of(url: str, pinned_key: str | None) -> Mapping[str, Any]:
    """The node's name, id and key, signed by that key; the password isn't sent before."""
    answer = _asked(_UNNAMED, "GET", f"{url}{API}/metadata")
    node_key = node_key_in(answer.content)
    if answer.status != 200 or not node_key:
        raise NodeUnreachable(_UNNAMED, url, f"status {answer.status}")
    if pinned_key is not None and node_key != pinned_key:
        raise LoginFailed(f"{url} is not the node you know: its node key is another one.")
    if not answer.is_from(node_key):
        raise LoginFailed(f"{url} did not sign its answer with the node key it names.")
    return dict(json.loads(answer.content))


def _asked(
    name: str, method: str, url: str, body: bytes = b"", *, json_body: bool = False
) -> Answer:
    try:
        with requests.Session() as session:
            return ask(
                session,
                method,
                url,
                body,
                json_body=json_body,
                timeout=(CONNECT_TIMEOUT_S, LOGIN_TIMEOUT_S),
                most=_MAX_LOGIN_BYTES,
            )
    except requests.RequestException as error:
        raise NodeUnreachable(name, url, why_unreached(error)) from None
    except AnswerRefused as error:
        raise LoginFailed(f"{url}: {error}") from None
