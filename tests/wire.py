"""A wire with a tap: everything that passes between a client and the nodes, kept and counted.

Each node gets an address of its own that forwards to the node. Tests read what left the node byte
by byte, and act (kill a process, say) just before or after one message.
"""

import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import requests
from syft.serde.deserialize import _deserialize

from network.answers import NONCE, SEAL
from network.envelope import open_envelope
from network.streams import STREAMS

Act = Callable[[], None]


@dataclass(frozen=True)
class Message:
    """One call and its answer; `answer` is every byte that left the node for it."""

    node: str
    method: str
    answer: bytes
    streamed: bool = False


@dataclass
class Wire:
    """Forwards to nodes and keeps what passes.

    Attributes:
        messages: every answered call, in order.
        acts: what to do 'before' or 'after' a node sees a method, once each.
    """

    urls: Mapping[str, str]
    messages: list[Message] = field(default_factory=list)
    acts: dict[tuple[str, str, str], Act] = field(default_factory=dict)
    _servers: list[ThreadingHTTPServer] = field(default_factory=list)

    def __enter__(self) -> "Wire":
        for name in self.urls:
            server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler(name))
            threading.Thread(target=server.serve_forever, daemon=True).start()
            self._servers.append(server)
        return self

    def __exit__(self, *_: object) -> None:
        for server in self._servers:
            server.shutdown()
            server.server_close()

    def accounts(self, direct: Path, written: Path) -> Path:
        """The same accounts with the tapped addresses, as a file."""
        found = json.loads(direct.read_text())
        for name, server in zip(self.urls, self._servers, strict=True):
            found[name]["url"] = f"http://127.0.0.1:{server.server_address[1]}"
        written.write_text(json.dumps(found))
        return written

    def _act(self, when: str, name: str, method: str) -> None:
        act = self.acts.pop((when, name, method), None)
        if act is not None:
            act()

    def _handler(self, name: str) -> type[BaseHTTPRequestHandler]:
        wire, target = self, self.urls[name]

        class Forward(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._forward("GET", b"")

            def do_POST(self) -> None:
                self._forward("POST", self.rfile.read(int(self.headers["Content-Length"])))

            def _forward(self, verb: str, body: bytes) -> None:
                method = method_of(self.path, body)
                wire._act("before", name, method)
                kept = ("Content-Type", NONCE)
                kind = {each: self.headers[each] for each in kept if each in self.headers}
                try:
                    answer = requests.request(verb, target + self.path, data=body, headers=kind)
                except requests.RequestException:
                    self.close_connection = True
                    return
                streamed = self.path.startswith(STREAMS)
                wire.messages.append(Message(name, method, answer.content, streamed))
                wire._act("after", name, method)
                self.send_response(answer.status_code)
                for each in ("Content-Type", SEAL):
                    if each in answer.headers:
                        self.send_header(each, answer.headers[each])
                self.send_header("Content-Length", str(len(answer.content)))
                self.end_headers()
                self.wfile.write(answer.content)

            def log_message(self, *_: Any) -> None:
                """Tests print nothing."""

        return Forward


def method_of(path: str, body: bytes) -> str:
    """The service method that a signed call names, without `coterie.`; else the HTTP path."""
    if path.startswith(STREAMS):
        return path.rpartition("/")[2]
    if not path.endswith("/api_call"):
        return path
    call = _deserialize(open_envelope(body).message, from_bytes=True)
    return str(call.path).removeprefix("coterie.")
