"""What attackers send: crafted frames, calls and answers, and what came of them."""

import socket
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import psutil
import requests
from syft.client.api import SyftAPICall
from syft.serde.recursive import recursive_scheme
from syft.serde.recursive_primitives import iterable_schema, kv_iterable_schema
from syft.serde.serialize import _serialize
from syft.server.credentials import SyftSigningKey

from coterie.processes import running
from network.answers import ask
from network.client import API, NodeClient, NodeRefused
from tests.network_of_three import Network


@dataclass(frozen=True)
class Target:
    """The node under attack, and the accounts that attackers hold on it."""

    network: Network
    node: NodeClient
    auditor: NodeClient
    rival: NodeClient

    @property
    def url(self) -> str:
        return self.node.url + API

    @property
    def key(self) -> SyftSigningKey:
        return self.node._key


@dataclass(frozen=True)
class Attack:
    """One attack: `run` gives what came of it, starting with 'refused' if it was."""

    name: str
    tried: str
    run: Callable[[Target], str]


def processor_seconds(target: Target) -> float:
    """What the node has used so far, however busy the machine is with other things."""
    pid = running(target.network.home.domain("east").pid_file)
    assert pid is not None
    used = psutil.Process(pid).cpu_times()
    return float(used.user + used.system)


def post(target: Target, body: bytes, path: str = "/api_call", **more: Any) -> str:
    """Send bytes; what the node said, or 'refused' in its words."""
    with requests.Session() as session:
        answer = ask(session, "POST", target.url + path, body, timeout=(120, 120), **more)
    return verdict(target, answer.status, answer.content)


def get(target: Target, path: str, method: str = "GET", **more: Any) -> str:
    answer = requests.request(method, target.url + path, timeout=120, allow_redirects=False, **more)
    return verdict(target, answer.status_code, answer.content)


def verdict(target: Target, status: int, content: bytes) -> str:
    if status >= 500:
        return f"failed ({status})"
    if status != 200:
        return f"refused ({status}): {content[:200].decode('utf-8', 'replace')}"
    try:
        return f"answered: {str(target.node._value_of(content))[:200]}"
    except NodeRefused as error:
        return f"refused: {error}"


def call(client: NodeClient, path: str, **arguments: Any) -> str:
    """A well-formed call; what came of it."""
    try:
        return f"answered: {str(client.call_syft(path, **arguments))[:200]}"
    except NodeRefused as error:
        return f"refused: {error}"


def message(target: Target, **fields: Any) -> SyftAPICall:
    given = {"server_uid": target.node.server_uid, "path": "coterie.describe"}
    return SyftAPICall(**{**given, "args": [], "kwargs": {}, **fields})


def signed(blob: bytes, key: SyftSigningKey, **replaced: bytes) -> bytes:
    """The envelope of a message, with a signature that holds unless a field is replaced."""
    signature = bytes(key.signing_key.sign(blob).signature)
    fields = {
        "credentials": packed(key.verify_key),
        "serialized_message": packed(blob),
        "signature": packed(signature),
    }
    return crafted("SignedSyftAPICall", {**fields, **replaced})


def packed(value: Any) -> bytes:
    return bytes(_serialize(value, to_bytes=True))


def crafted(name: str, fields: Mapping[str, bytes], version: int = 1) -> bytes:
    """An object of any canonical name and any fields, whatever Syft would write."""
    frame = recursive_scheme.new_message()
    frame.canonicalName, frame.version = name, version
    frame.init("fieldsName", len(fields))
    frame.init("fieldsData", len(fields))
    for index, (field, value) in enumerate(fields.items()):
        frame.fieldsName[index] = field
        frame.fieldsData.init(index, 1)[0] = value
    return bytes(frame.to_bytes())


def blob_of(name: str, content: bytes) -> bytes:
    """An object that Syft writes as one blob."""
    frame = recursive_scheme.new_message()
    frame.canonicalName, frame.version = name, 1
    frame.init("nonrecursiveBlob", 1)[0] = content
    return bytes(frame.to_bytes())


def sequence(name: str, *parts: bytes) -> bytes:
    """A list or tuple whose parts are packed already."""
    frame = iterable_schema.new_message()
    frame.init("values", len(parts))
    for index, part in enumerate(parts):
        frame.values.init(index, 1)[0] = part
    return blob_of(name, bytes(frame.to_bytes()))


def mapping(name: str, pairs: Mapping[bytes, bytes]) -> bytes:
    frame = kv_iterable_schema.new_message()
    frame.init("keys", len(pairs))
    frame.init("values", len(pairs))
    for index, (key, value) in enumerate(pairs.items()):
        frame.keys[index] = key
        frame.values.init(index, 1)[0] = value
    return blob_of(name, bytes(frame.to_bytes()))


def alias(path: str, *arguments: Any) -> bytes:
    """The generic alias with which stock Syft calls any attribute of a loaded module."""
    parts = {"path": path, "__origin__": None, "__args__": tuple(arguments)}
    return blob_of("_GenericAlias", packed(parts))


def with_argument(target: Target, argument: bytes, key: SyftSigningKey | None = None) -> bytes:
    """A call signed by a member whose one argument is crafted bytes."""
    fields = {
        "id": packed(message(target).id),
        "server_uid": packed(target.node.server_uid),
        "path": packed("coterie.plans"),
        "args": sequence("list", argument),
        "kwargs": packed({}),
        "blocking": packed(True),
    }
    return signed(crafted("SyftAPICall", fields), key or target.key)


def array(data: bytes, size: int, dtype: str) -> bytes:
    """An array as Syft packs it, with any size and dtype claimed."""
    return blob_of("numpy_ndarray", packed((data, size, dtype)))


def of_one_hash(count: int) -> bytes:
    """A mapping whose keys Python can't tell apart by their hash: integers, modulo 2**61 - 1."""
    return mapping("dict", {packed(7 + n * (2**61 - 1)): packed(0) for n in range(count)})


def list_of_nothing(count: int) -> bytes:
    """A list of so many null pointers; each takes eight bytes here, and a place in memory."""
    frame = iterable_schema.new_message()
    frame.init("values", count)
    return blob_of("list", bytes(frame.to_bytes()))


LAST = b"GET /nothing HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
"""A request after which a node hangs up."""


def line_to(target: Target) -> socket.socket:
    """A connection to the node on which two seconds of silence are an answer too."""
    parts = urlsplit(target.node.url)
    line = socket.create_connection((str(parts.hostname), parts.port or 80), timeout=120)
    line.settimeout(2)
    return line


def raw(target: Target, text: bytes, last: bytes = LAST) -> bytes:
    """What comes back for bytes on the socket that no HTTP client would send.

    Whoever half-closes gets no answer, so that a last request is what ends the connection; where
    it is taken for a part of the one before, that is seen by the silence.
    """
    found = b""
    with line_to(target) as line, suppress(ConnectionResetError):
        # A node that has heard enough hangs up, maybe before the last byte was sent.
        with suppress(OSError):
            line.sendall(text + last)
        try:
            while part := line.recv(2**16):
                found += part
        except TimeoutError:
            line.settimeout(120)
            line.shutdown(socket.SHUT_WR)
            while part := line.recv(2**16):
                found += part
    return found
