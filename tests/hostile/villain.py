"""A server that lies to whoever calls it, and what it heard."""

import json
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import accumulate, pairwise
from threading import Thread
from typing import Any

from blake3 import blake3
from nacl.signing import SigningKey
from syft.protocol.data_protocol import get_data_protocol
from syft.server.credentials import SyftSigningKey
from syft.types.uid import UID

import coterie  # noqa: F401
from network.answers import NONCE, SEAL, _sealed_text
from network.client import NodeClient
from tests.hostile.attacks import crafted, packed

NODE = SyftSigningKey.generate()
OTHER = SyftSigningKey.generate()


def digest_of(content: bytes, sizes: str) -> bytes:
    """What a seal names of an answer's content: its BLAKE3, or that of its parts' in a row."""
    if not sizes:
        return blake3(content).digest()
    ends = list(accumulate(map(int, sizes.split(","))))
    parts = (content[begin:end] for begin, end in pairwise([0, *ends]))
    return blake3(b"".join(blake3(part).digest() for part in parts)).digest()


class Villain:
    """A server that answers what a test tells it to, sealed by a key of the test's choice."""

    def __init__(self) -> None:
        self.answers: dict[str, bytes] = {}
        self.key: SigningKey | None = NODE.signing_key
        self.headers: dict[str, str] = {}
        self.status = 200
        self.nonce: str | None = None
        self.sealed: bytes | None = None
        self.sizes = ""
        self.announced: str | None = None
        self.asked = 0
        villain = self

        class Answers(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._answer(b"")

            def do_POST(self) -> None:
                self._answer(self.rfile.read(int(self.headers["Content-Length"])))

            def _answer(self, body: bytes) -> None:
                villain.asked += 1
                content = villain.answers.get(self.path.partition("?")[0], villain.anything())
                self.send_response(villain.status)
                if villain.key is not None:
                    sizes = villain.sizes and [villain.sizes.encode()]
                    text = _sealed_text(
                        villain.nonce or self.headers.get(NONCE, ""),
                        self.command,
                        self.path.encode(),
                        blake3(body).digest(),
                        digest_of(villain.sealed or content, villain.sizes),
                        *(sizes or []),
                    )
                    seal = villain.key.sign(text).signature.hex()
                    announced = villain.sizes if villain.announced is None else villain.announced
                    self.send_header(SEAL, f"{seal};{announced}" if announced else seal)
                for name, value in villain.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                try:
                    self.wfile.write(content)
                except OSError:
                    self.close_connection = True

            def log_message(self, *_: Any) -> None:
                """Tests print nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
        Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def anything(self) -> bytes:
        return self.answers.get("*", b"")

    def signed(self, blob: bytes, key: SyftSigningKey = NODE) -> bytes:
        """An answer in Syft's envelope."""
        fields = {
            "credentials": packed(key.verify_key),
            "serialized_message": packed(blob),
            "signature": packed(bytes(key.signing_key.sign(blob).signature)),
        }
        return crafted("SignedSyftAPICall", fields)

    def describe(self, **changed: Any) -> None:
        self.answers["/api/v2/metadata"] = json.dumps(METADATA | changed).encode()


METADATA = {
    "name": "villain", "id": UID().no_dash, "verify_key": str(NODE.verify_key),
    "highest_version": 1, "lowest_version": 1, "syft_version": "0.9.5", "server_side_type": "low",
    "server_type": "datasite", "show_warnings": False, "signup_enabled": False,
    "metadata_version": 1, "organization": "x", "description": "x", "min_size_blob_storage_mb": 1,
    "eager_execution_enabled": False,
    "supported_protocols": get_data_protocol().supported_protocols,
}  # fmt: skip


def client_of(villain: Villain) -> NodeClient:
    key = SyftSigningKey.generate()
    return NodeClient("villain", villain.url, key, UID(), str(NODE.verify_key))


class Heard:
    """What octets are written to, and what was signed of them."""

    def __init__(self) -> None:
        self.octets, self.parts = b"", list[tuple[int, bytes]]()

    def write(self, part: bytes) -> None:
        self.octets += part

    def sealed(self, parts: Sequence[tuple[int, bytes]]) -> None:
        self.parts = list(parts)
