"""The dealer of triples and bits: a party of its own, in a process of its own.

It takes no part in a plan but this: for domains that it was told of, which show fresh keys signed
by their nodes, it draws what a computation takes (`network.smpc.dealing`), seals a seed to each
domain and forgets what it drew. It sees no tensor and no message about one. What it sends needs no
secrecy on the way.

Run it on a machine of nobody who takes part: coterie dealer --key dealer.pem --domain KEY ..., or
python -m network.dealer KEY_FILE HOST PORT KEY ...
"""

import json
import sys
from collections import OrderedDict
from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import requests
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from fastapi import FastAPI, HTTPException, Request, Response
from numpy.typing import NDArray
from pydantic import Field

from network.answers import AnswerRefused, ask
from network.bodies import Bodies
from network.limits import Limits, Rate, TooMuch, block_of
from network.smpc.agreement import among_all
from network.smpc.attempt import Agreement, Context
from network.smpc.dealing import Dealt, deal, pack, unpack
from network.smpc.messages import (
    MalformedMessage,
    Name,
    SharingRefused,
    _Message,
)
from network.smpc.sharing import TensorKey, keys_transcript, verify_keys
from network.smpc.tensors import Hex, Size, tuples
from network.smpc.triples import MAX_FACTOR, MAX_MULTIPLY_ADDS, Factors
from network.smpc.truncation import MAX_BITS, Truncation
from policies.approvals import create_owner_key, load_owner_key, owner_key_hex
from policies.sensitivity import MAX_DIMENSIONS

MAX_REQUEST_BYTES = 2**17
_TIMEOUT_S = (5, 120)
_REQUESTS_PER_S, _REQUEST_BURST = 20.0, 200
"""Of one address."""
_REMEMBERED = 2**18
"""For so many computations it is remembered that they were dealt for."""


class DealerError(Exception):
    """The dealer doesn't answer, or not as a dealer does; the text says which."""


class WantedProduct(_Message):
    """The shapes of a product's factors, as in `Factors`."""

    x: Annotated[tuple[Size, ...], Field(max_length=MAX_DIMENSIONS)]
    y: Annotated[tuple[Size, ...], Field(max_length=MAX_DIMENSIONS)]
    matrices: bool

    def read(self) -> Factors:
        """Raises MalformedMessage: shapes that don't fit, or too large."""
        fits = self.x[-1:] == self.y[:1] if self.matrices else self.x == self.y
        if not fits or (self.matrices and not {len(self.x), len(self.y)} <= {1, 2}):
            raise MalformedMessage("the shapes of the factors don't fit")
        found = Factors(self.x, self.y, self.matrices)
        if not 0 < min(found.sizes) <= max(found.sizes) <= MAX_FACTOR:
            raise MalformedMessage(f"factors and products have 1 to {MAX_FACTOR} elements")
        if found.work > MAX_MULTIPLY_ADDS:
            raise MalformedMessage("this product takes too many operations")
        return found


class WantedTruncation(_Message):
    """What a truncation drops of how much, as in `Truncation`."""

    length: Annotated[int, Field(ge=1, le=MAX_BITS)]
    bound: Annotated[int, Field(ge=1, le=62)]
    dropped: Annotated[int, Field(ge=1, le=62)]

    def read(self) -> Truncation:
        """Raises MalformedMessage: more bits than there are, or too many."""
        found = Truncation(self.length, self.bound, self.dropped)
        if self.dropped > self.bound or found.bits > MAX_BITS:
            raise MalformedMessage(f"a truncation takes at most {MAX_BITS} bits")
        return found


class Wanted(_Message):
    """A request for what one computation takes.

    Attributes:
        plan_hash, roster, collusion, number, operands: of its agreement.
        keys: of all domains on the roster.
    """

    plan_hash: Hex
    roster: Annotated[dict[Name, Hex], Field(min_length=2, max_length=64)]
    collusion: Annotated[int, Field(ge=1, le=63)]
    number: Annotated[int, Field(ge=0, lt=2**32)]
    operands: Hex
    work: WantedProduct | WantedTruncation
    keys: Annotated[tuple[dict[str, str], ...], Field(max_length=64)]

    @staticmethod
    def work_of(work: Factors | Truncation) -> WantedProduct | WantedTruncation:
        """What `read` of the result gives."""
        if isinstance(work, Factors):
            return WantedProduct(x=work.x, y=work.y, matrices=work.matrices)
        return WantedTruncation(length=work.length, bound=work.bound, dropped=work.dropped)

    def agreement(self) -> Agreement:
        """What the domains agreed on for this computation."""
        length = self.work.read().drawn[-1]
        context = Context(self.plan_hash, "multiply", self.number, 0, f"{self.operands}/{length}")
        return among_all(context, self.roster, self.collusion, length)


class Dealer:
    """Deals to domains it knows, once for the keys they show.

    Args:
        domains: node keys, hex, of those it deals to; all of a roster must be among them.

    Raises:
        DealerError: its key is one of theirs.
    """

    def __init__(self, key: Ed25519PrivateKey, domains: Collection[str]) -> None:
        if owner_key_hex(key) in domains:
            raise DealerError("This key is a domain's node key. A dealer takes part in nothing.")
        self.key = key
        self._domains = frozenset(domains)
        self._dealt: OrderedDict[str, None] = OrderedDict()

    def answer(self, body: bytes) -> bytes:
        """What it answers to a `Wanted` as JSON.

        Raises:
            HTTPException: it isn't one, its keys aren't signed for it, were dealt to before, or are
                of domains that it doesn't know.
        """
        try:
            wanted = Wanted.from_dict(tuples(json.loads(body)))
            if not self._domains.issuperset(wanted.roster.values()):
                raise HTTPException(403, "This dealer wasn't told to deal to all of this roster.")
            keys = [TensorKey.from_dict(each) for each in wanted.keys]
            agreement, work = wanted.agreement(), wanted.work.read()
            self._once(keys_transcript(agreement, verify_keys(agreement, keys)).hex())
            dealt, corrections = deal(agreement, work, keys, self.key)
        except (MalformedMessage, SharingRefused) as error:
            raise HTTPException(422, str(error)) from None
        except (ValueError, RecursionError):
            raise HTTPException(422, "Not a request for what a computation takes.") from None
        return pack(dealt.to_dict(), corrections.reshape(-1)).tobytes()

    def _once(self, transcript: str) -> None:
        if transcript in self._dealt:
            raise HTTPException(409, "This was dealt already; begin anew with fresh keys.")
        self._dealt[transcript] = None
        if len(self._dealt) > _REMEMBERED:
            self._dealt.popitem(last=False)


def build_app(dealer: Dealer, rate: Rate | None = None) -> FastAPI:
    """The dealer's HTTP app: POST /deal takes a `Wanted` and answers what `pack` packs.

    Args:
        rate: how much one address may ask.
    """
    app = FastAPI(openapi_url=None, redirect_slashes=False)
    rate, bodies = rate or Rate(_REQUESTS_PER_S, _REQUEST_BURST), Bodies(Limits())

    @app.get("/")
    async def card() -> dict[str, str]:
        return {"dealer": owner_key_hex(dealer.key)}

    @app.post("/deal")
    async def dealt(request: Request) -> Response:
        try:
            rate.spend(block_of(request.client.host if request.client else ""))
            async with bodies.of(request, MAX_REQUEST_BYTES) as body:
                # Not in a thread: one at a time, since the largest take a second and 100 MB.
                return Response(dealer.answer(bytes(body)), media_type="application/octet-stream")
        except TooMuch as refused:
            wait = {"Retry-After": str(refused.wait_s)}
            raise HTTPException(429, str(refused), wait) from None

    return app


def serve(key_file: Path, host: str, port: int, domains: Collection[str]) -> None:
    """Deal until told to stop; makes the key if there is none, and says its public half.

    Args:
        domains: node keys, hex, of those it deals to.

    Raises:
        OwnerKeyError: the file holds no such key, or can't be made.
    """
    from network.connections import serve_app

    made = load_owner_key if key_file.exists() else create_owner_key
    key = made(key_file, None)
    print(f"Dealing at http://{host}:{port} with the key {owner_key_hex(key)}", flush=True)
    serve_app(build_app(Dealer(key, domains)), host, port)


def ask_dealer(url: str, wanted: Wanted) -> tuple[dict[str, Any], NDArray[np.uint64]]:
    """What the dealer at `url` deals: a `Dealt` as JSON-able values, and the corrections, flat.

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
            f"The dealer at {url} doesn't answer as a dealer does ({type(error).__name__}). "
            "Is it up? coterie dealer"
        ) from None


if __name__ == "__main__":
    serve(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4:])
