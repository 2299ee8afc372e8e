"""The dealer of multiplication triples: a party of its own, in a process of its own.

It takes no part in a plan but this: for domains that show fresh keys signed by their nodes, it
draws triples (`network.smpc.triples`), seals a seed to each domain and forgets what it drew. It
sees no tensor and no message about one. What it sends needs no secrecy on the way.

Run it on a machine of nobody who takes part: coterie dealer --key dealer.pem, or
python -m network.dealer KEY_FILE HOST PORT
"""

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import requests
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from fastapi import FastAPI, HTTPException, Request, Response
from numpy.typing import NDArray
from pydantic import Field

from network.answers import AnswerRefused, ask
from network.smpc.agreement import among_all
from network.smpc.attempt import Agreement, Context
from network.smpc.messages import (
    MalformedMessage,
    Name,
    SharingRefused,
    _Message,
)
from network.smpc.sharing import TensorKey
from network.smpc.tensors import MAX_FACTOR, MAX_MULTIPLY_ADDS, Hex, Size, tuples
from network.smpc.triples import Dealt, Factors, deal, pack, unpack
from policies.approvals import create_owner_key, load_owner_key, owner_key_hex

MAX_REQUEST_BYTES = 2**17
_TIMEOUT_S = (5, 120)


class DealerError(Exception):
    """The dealer doesn't answer, or not with triples; the text says which."""


class Wanted(_Message):
    """A request for triples for one product.

    Attributes:
        plan_hash, roster, collusion, number, operands: of the product's agreement.
        x, y, matrices: as in `Factors`.
        keys: of all domains on the roster.
    """

    plan_hash: Hex
    roster: Annotated[dict[Name, Hex], Field(min_length=2, max_length=64)]
    collusion: Annotated[int, Field(ge=1, le=63)]
    number: Annotated[int, Field(ge=0, lt=2**32)]
    operands: Hex
    x: Annotated[tuple[Size, ...], Field(min_length=1, max_length=4)]
    y: Annotated[tuple[Size, ...], Field(min_length=1, max_length=4)]
    matrices: bool
    keys: Annotated[tuple[dict[str, str], ...], Field(max_length=64)]

    def factors(self) -> Factors:
        """What is multiplied.

        Raises:
            MalformedMessage: shapes that don't fit, or too large.
        """
        fits = self.x[-1] == self.y[0] if self.matrices else self.x == self.y
        if not fits or (self.matrices and max(len(self.x), len(self.y)) > 2):
            raise MalformedMessage("the shapes of the factors don't fit")
        found = Factors(self.x, self.y, self.matrices)
        if not 0 < min(found.sizes) <= max(found.sizes) <= MAX_FACTOR:
            raise MalformedMessage(f"factors and products have 1 to {MAX_FACTOR} elements")
        if found.sizes[0] * found.as_matrices[2] > MAX_MULTIPLY_ADDS:
            raise MalformedMessage("this product takes too many operations")
        return found

    def agreement(self) -> Agreement:
        """What the domains agreed on for this product."""
        length = self.factors().sizes[2]
        context = Context(self.plan_hash, "multiply", self.number, 0, f"{self.operands}/{length}")
        return among_all(context, self.roster, self.collusion, length)


def build_app(key: Ed25519PrivateKey) -> FastAPI:
    """The dealer's HTTP app: POST /deal takes a `Wanted` and answers what `pack` packs."""
    app = FastAPI(openapi_url=None)

    @app.get("/")
    async def card() -> dict[str, str]:
        return {"dealer": key.public_key().public_bytes_raw().hex()}

    @app.post("/deal")
    async def dealt(request: Request) -> Response:
        body = b""
        async for part in request.stream():
            body += part
            if len(body) > MAX_REQUEST_BYTES:
                raise HTTPException(413, f"At most {MAX_REQUEST_BYTES} bytes.")
        # Not in a thread: one at a time, since the largest take a second and 100 MB.
        return Response(answer(body, key), media_type="application/octet-stream")

    return app


def serve(key_file: Path, host: str, port: int) -> None:
    """Deal until told to stop; makes the key if there is none, and says its public half.

    Raises:
        OwnerKeyError: the file holds no such key, or can't be made.
    """
    from network.connections import serve_app

    made = load_owner_key if key_file.exists() else create_owner_key
    key = made(key_file, None)
    print(f"Dealing at http://{host}:{port} with the key {owner_key_hex(key)}", flush=True)
    serve_app(build_app(key), host, port)


def ask_dealer(url: str, wanted: Wanted) -> tuple[dict[str, Any], NDArray[np.uint64]]:
    """Triples from the dealer at `url`: a `Dealt` as JSON-able values, and the corrections, flat.

    Raises:
        DealerError: no answer, or none of this kind.
    """
    body = json.dumps(wanted.to_dict()).encode()
    try:
        with requests.Session() as session:
            answered = ask(
                session, "POST", f"{url.rstrip('/')}/deal", body, json_body=True, timeout=_TIMEOUT_S
            )
        if answered.status != 200:
            raise DealerError(f"The dealer at {url} refused: {answered.excerpt}")
        said, corrections = unpack(np.frombuffer(answered.content, np.uint8))
        return Dealt.from_dict(said).to_dict(), corrections
    except (AnswerRefused, MalformedMessage, requests.RequestException) as error:
        raise DealerError(
            f"The dealer at {url} doesn't answer with triples ({type(error).__name__}). Is it up? "
            "coterie dealer"
        ) from None


def answer(body: bytes, key: Ed25519PrivateKey) -> bytes:
    """What the dealer of this key answers to a `Wanted` as JSON.

    Raises:
        HTTPException: it isn't one, or its keys aren't signed for it.
    """
    try:
        wanted = Wanted.from_dict(tuples(json.loads(body)))
        keys = [TensorKey.from_dict(each) for each in wanted.keys]
        dealt, corrections = deal(wanted.agreement(), wanted.factors(), keys, key)
    except (MalformedMessage, SharingRefused) as error:
        raise HTTPException(422, str(error)) from None
    except (ValueError, RecursionError):
        raise HTTPException(422, "Not a request for triples.") from None
    return pack(dealt.to_dict(), corrections.reshape(-1)).tobytes()


if __name__ == "__main__":
    serve(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
