"""Answers that are bound to their request: sealed by the node, checked by the client.

A client sends a random nonce with every request. A node signs, with the key its peers have pinned,
what was asked (nonce, method, target, hash of the body) together with the hash of its answer. So
an answer can't be forged, altered, or taken from another request, and a client reads none before
it has checked it. Plain Syft clients send no nonce and get the same answers unsealed.
Signature: Ed25519 (RFC 8032) over a tag of its own, so that it never passes for another message.
"""

import json
import secrets
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import requests
from nacl.exceptions import BadSignatureError
from nacl.signing import SigningKey, VerifyKey
from urllib3.exceptions import HTTPError, ReadTimeoutError

from network.parts import Content, Parts, PartsRefused, Sizes, named, read_names
from network.tls import keeps_secrets, secured

NONCE = "X-Coterie-Nonce"
"""64 random hex characters; where the body's parts are named, a semicolon and their sizes."""
SEAL = "X-Coterie-Seal"
"""The signature in hex; where the answer's parts are named, a semicolon and their sizes."""
KNOWN = "coterie.parts"
"""In the message that starts an answer: its parts, to be named."""
ASKED = "coterie.asked"
"""In a request's scope: its `Content`, as it comes."""
MAX_ANSWER_BYTES = 80 * 2**20
"""No answer of a node is longer; a longer one is cut off and refused."""

_PART_BYTES = 2**20
_TAG = b"coterie-answer-v2\x00"
_Message = MutableMapping[str, Any]
_Receive = Callable[[], Awaitable[_Message]]
_Send = Callable[[_Message], Awaitable[None]]


class AnswerRefused(Exception):
    """An answer is not signed by the node it should come from, or is too long; it wasn't read."""

    @property
    def public_message(self) -> str:
        """The text, where Syft's client looks for it."""
        return str(self)


def _sealed_text(nonce: str, method: str, target: bytes, asked: bytes, *answered: bytes) -> bytes:
    parts = (nonce.encode(), method.encode(), target, asked, *answered)
    return _TAG + b"".join(len(part).to_bytes(4, "big") + part for part in parts)


class Seal:
    """ASGI middleware: seals the answers to requests that carry a nonce."""

    def __init__(self, app: Callable[..., Awaitable[None]], key: SigningKey) -> None:
        self._app, self._key = app, key

    async def __call__(
        self, scope: MutableMapping[str, Any], receive: _Receive, send: _Send
    ) -> None:
        headers = dict(scope.get("headers", ()))
        nonce = headers.get(NONCE.lower().encode(), b"").decode("latin-1")
        named_parts = _named_in(nonce, headers) if scope["type"] == "http" else None
        if named_parts is None:
            await self._app(scope, receive, send)
            return
        asked = scope[ASKED] = Content(named_parts)
        answered = Content()
        start: list[_Message] = []
        parts: list[_Message] = []

        async def hear() -> _Message:
            message = await receive()
            asked.update(message.get("body", b""))
            return message

        async def say(message: _Message) -> None:
            nonlocal answered
            if message["type"] == "http.response.start":
                start.append(message)
                answered = Content(message.pop(KNOWN, ()))
                return
            parts.append(message)
            answered.update(message.get("body", b""))
            if message.get("more_body"):
                return
            target = scope["raw_path"] + (b"?" if scope["query_string"] else b"")
            # What wasn't taken whole is answered without a seal, and so not believed.
            with suppress(PartsRefused):
                heard, *_ = asked.signed()
                said = answered.signed()
                where = nonce, scope["method"], target + scope["query_string"]
                signature = self._key.sign(_sealed_text(*where, heard, *said)).signature
                seal = b";".join((signature.hex().encode(), *said[1:]))
                start[0]["headers"] = [*start[0]["headers"], (SEAL.lower().encode(), seal)]
            for each in (*start, *parts):
                await send(each)

        await self._app(scope, hear, say)


def _named_in(nonce: str, headers: Mapping[bytes, bytes]) -> Sizes | None:
    """The parts that a request's nonce names; None: it is none."""
    nonce, _, sizes = nonce.partition(";")
    if len(nonce) != 64 or not nonce.isalnum():
        return None
    try:
        parts = read_names(sizes)
    except PartsRefused:
        return None
    # A server takes as many bytes as were declared, so none beyond the last part.
    declared = sum(size for size, _ in parts)
    return parts if not parts or headers.get(b"content-length") == b"%d" % declared else None


@dataclass(frozen=True)
class Answer:
    """What came back, unread: `text` is what the seal must sign.

    Attributes:
        content: empty if it went elsewhere; see `ask`.
        size: in bytes.
        parts: size and BLAKE3 of each, if it was sealed in parts.
    """

    status: int
    content: bytes
    size: int
    parts: tuple[tuple[int, bytes], ...]
    text: bytes
    seal: str

    def is_from(self, node_key: str) -> bool:
        """Whether this node (64 hex characters) signed this answer to this request."""
        try:
            VerifyKey(bytes.fromhex(node_key)).verify(self.text, bytes.fromhex(self.seal))
        except (BadSignatureError, ValueError, TypeError):
            return False
        return True

    @property
    def excerpt(self) -> str:
        """Its beginning as one line of printable text, for an error message."""
        text = self.content[:500].decode("utf-8", "replace")
        return "".join(character if character.isprintable() else " " for character in text)


def ask(
    session: requests.Session,
    method: str,
    url: str,
    body: bytes | Parts = b"",
    *,
    json_body: bool = False,
    timeout: tuple[float, float] = (5.0, 600.0),
    into: Callable[[bytes], object] | None = None,
    most: int = MAX_ANSWER_BYTES,
) -> Answer:
    """Send a request with a nonce; the answer is bounded in size and time, and not yet trusted.

    Redirects aren't followed, nothing is unpacked, and an answer comes in one piece.

    Args:
        timeout: seconds to connect in, and for the whole answer, from its first byte to its last.
        most: bytes of the longest answer that is read.
        into: takes the content of an answer with status 200 part by part, at most 1 MiB each, so
            that it needn't be held in memory. It isn't to be believed before the seal is checked.

    Raises:
        requests.RequestException: no answer in time.
        AnswerRefused: longer than `most`, or in chunks.
    """
    sent = body if isinstance(body, Parts) else Parts((body,))
    nonce = _nonce(sent)
    line = secured(session, url)
    request = _prepared(line, method, url).copy()
    request.headers[NONCE] = nonce
    request.headers["Content-Type"] = f"application/{'json' if json_body else 'octet-stream'}"
    request.prepare_body(_whole_if_short(sent) or None, None)
    response = line.send(
        request, timeout=timeout, allow_redirects=False, **_surroundings(line, url)
    )
    parts: list[bytes] = []
    take = into if into is not None and response.status_code == 200 else parts.append
    try:
        with response:
            seal, _, sizes = response.headers.get(SEAL, "").partition(";")
            size, answered = _taken(response, most, take, Content(read_names(sizes)))
        said = answered.signed()
    except PartsRefused as error:
        raise AnswerRefused(f"The answer is {error}.") from None
    asked = Content(sent.known())
    for piece in sent:
        asked.update(piece)
    target = str(request.path_url).encode()
    text = _sealed_text(nonce, method, target, asked.signed()[0], *said)
    known = zip(answered.parts, answered.digests, strict=True)
    found = tuple((length, digest) for (length, _), digest in known)
    return Answer(response.status_code, b"".join(parts), size, found, text, seal)


def _nonce(sent: Parts) -> str:
    """Random for each request; names the parts of its body, if their digests are known."""
    random, known = secrets.token_hex(32), sent.known()
    return f"{random};{named(known)}" if known else random


def _whole_if_short(sent: Parts) -> bytes | Parts:
    return b"".join(sent) if len(sent) <= _PART_BYTES else sent


def _prepared(session: requests.Session, method: str, url: str) -> requests.PreparedRequest:
    """A request without a body, made once for each address and method."""
    known: dict[tuple[str, str], requests.PreparedRequest]
    known = session.__dict__.setdefault("_coterie_prepared", {})
    if (method, url) not in known:
        headers = {"Accept-Encoding": "identity"}
        request = requests.Request(method, url, headers, auth=no_password)
        known[method, url] = session.prepare_request(request)
    return known[method, url]


def _surroundings(session: requests.Session, url: str) -> Mapping[str, Any]:
    """What the environment says of proxies and certificates: looked up once for each address."""
    known: dict[str, Mapping[str, Any]] = session.__dict__.setdefault("_coterie_surroundings", {})
    origin = _origin(url)
    if origin not in known:
        found = session.merge_environment_settings(url, {}, True, None, None)
        # Else requests looks on the disk for certificates at each call, for a line without TLS too.
        known[origin] = found if url.startswith("https:") else {**found, "verify": True}
    return known[origin]


def no_password(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """Said explicitly, since requests would send what a .netrc file holds for the host."""
    return request


def _taken(
    response: requests.Response, most: int, take: Callable[[bytes], object], content: Content
) -> tuple[int, Content]:
    """Hand the content over as it comes: its size, and `content` with all of it.

    A chunk's head has no bound, so nobody of ours sends chunks.
    """
    if "transfer-encoding" in response.headers:
        raise AnswerRefused("The answer comes in chunks; a node answers in one piece.")
    declared = response.headers.get("content-length", "")
    if declared.isdecimal() and int(declared[:20]) > most:
        raise AnswerRefused(f"The answer is longer than {most} bytes.")
    size = 0
    try:
        while part := response.raw.read1(_PART_BYTES, decode_content=False):
            size += len(part)
            if size > most:
                raise AnswerRefused(f"The answer is longer than {most} bytes.")
            content.update(part)
            take(part)
    except ReadTimeoutError:
        raise requests.ReadTimeout("The answer comes too slowly.") from None
    except HTTPError as error:
        raise requests.ConnectionError(type(error).__name__) from None
    return size, content


_pins: dict[str, str] = {}


def pin_node(url: str, node_key: str) -> None:
    """From now on Syft's clients in this process take answers from `url` only of this node."""
    _pins[_origin(url)] = node_key


def _origin(url: str) -> str:
    parts = urlsplit(url)
    host = "127.0.0.1" if parts.hostname in ("localhost", "127.0.0.1") else parts.hostname
    return f"{host}:{parts.port or (443 if parts.scheme == 'https' else 80)}"


def check_syft_answers() -> None:
    """Make Syft's own HTTP clients in this process check every answer before it is read."""
    from syft.client.client import HTTPConnection
    from syft.types.server_url import ServerURL

    ServerURL.from_url = classmethod(_url_with_its_port)
    HTTPConnection._make_get = _get
    HTTPConnection._make_post = _post
    HTTPConnection._make_put = _put
    HTTPConnection.make_call = _make_call


def _url_with_its_port(kind: Any, url: Any) -> Any:
    """Syft's address from text; its own reads the port of every https address as 443."""
    if isinstance(url, kind):
        return url
    parts = urlsplit(url if "://" in url else f"http://{url}")
    return kind(
        protocol=parts.scheme,
        host_or_ip=parts.hostname or "",
        port=parts.port or (443 if parts.scheme == "https" else 80),
        path=parts.path,
        query=parts.query,
    )


def _get(
    connection: Any, path: str, params: Mapping[str, Any] | None = None, stream: bool = False
) -> bytes:
    if stream:
        raise AnswerRefused("Coterie's nodes have no streams. Look at mocks with dataset.assets.")
    target = str(connection.url.with_path(path))
    prepared = requests.Request("GET", target, params=params).prepare()
    return _checked(connection, "GET", str(prepared.url))


def _post(
    connection: Any,
    path: str,
    json: Mapping[str, Any] | None = None,
    data: bytes | None = None,
) -> bytes:
    body = data if data is not None else _json(json)
    return _checked(
        connection, "POST", str(connection.url.with_path(path)), body, json_body=data is None
    )


def _put(connection: Any, path: str, data: Any, stream: bool = False) -> Any:
    raise AnswerRefused("Coterie's nodes take no uploads; the owner adds data on her machine.")


def _make_call(connection: Any, signed_call: Any) -> Any:
    from syft.serde.deserialize import _deserialize
    from syft.serde.serialize import _serialize

    blob = _serialize(signed_call, to_bytes=True)
    content = _checked(connection, "POST", str(connection.api_url), blob)
    return _deserialize(content, from_bytes=True)


def _checked(
    connection: Any, method: str, url: str, body: bytes = b"", *, json_body: bool = False
) -> bytes:
    """The content of an answer signed by the node that this address is pinned to."""
    if url.endswith("/login") and not keeps_secrets(url):
        raise AnswerRefused(f"{url} isn't encrypted; your password isn't sent. Use https://.")
    answer = ask(connection.session, method, url, body, json_body=json_body)
    if answer.status != 200:
        raise requests.ConnectionError(f"{url} answered {answer.status}: {answer.excerpt}")
    key = _pins.get(_origin(url)) or _first_sight(connection, url, answer)
    if not answer.is_from(key):
        raise AnswerRefused(
            f"The answer of {url} is not signed by the node key known for it. With coterie "
            "imported, only Coterie nodes are talked to; use another process for other servers."
        )
    return answer.content


def _first_sight(connection: Any, url: str, answer: Answer) -> str:
    if not urlsplit(url).path.endswith("/metadata"):
        connection._make_get(connection.routes.ROUTE_METADATA.value)
        return _pins[_origin(url)]
    key = node_key_in(answer.content)
    if answer.is_from(key):
        _pins[_origin(url)] = key
    return key


def node_key_in(metadata: bytes) -> str:
    """The node key that a metadata answer names; empty if it names none."""
    try:
        found = json.loads(metadata)
        return str(found["verify_key"])
    except (ValueError, TypeError, KeyError, RecursionError):
        return ""


def _json(body: Mapping[str, Any] | None) -> bytes:
    return json.dumps(body).encode()
