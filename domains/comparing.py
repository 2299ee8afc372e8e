"""A node's part in comparing tensors through SPU: a process of its own for each comparison.

Off unless the owner says where SPU is, in `spu.toml` beside `domain.toml`:

    python = "/opt/spu/bin/python"      # of an environment of its own, with spu==0.9.5
    address = "10.0.0.5:8301"           # where the two partners reach it
"""

import datetime
import hashlib
import json
import secrets
import socket
import subprocess
import sys
import tempfile
import threading
import tomllib
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from domains.confinement import clean_environment
from network.smpc.attempt import Agreement, framed
from network.smpc.comparisons import (
    Offer,
    offer_message,
    offers_transcript,
    verify_offers,
)
from network.smpc.keys import EphemeralKey
from network.smpc.masks import apply
from network.smpc.messages import SharingRefused
from network.smpc.ring import Elements
from network.smpc.sharing import pair_masks
from policies.sensitivity import TensorRefused

INSTALL = (
    "python3.11 -m venv /opt/spu; /opt/spu/bin/pip install spu==0.9.5; then write python and "
    "address into spu.toml (docs/tensors.md)"
)
_WALLS, _PARTY = "domains.spu_walls", Path(__file__).parent / "spu_party.py"
_LINK_SECONDS, _SECONDS = 60, 240
_LOCAL_PORTS = range(20_000, 32_000)
_AT_WORK = threading.Semaphore(1)
"""A node has one address for comparisons, and memory for one process of SPU."""


class Place(BaseModel):
    """Where SPU is on this machine: `spu.toml`."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    python: Annotated[str, Field(min_length=1)]
    address: Annotated[str, Field(pattern="^[A-Za-z0-9.-]{1,253}:[0-9]{1,5}$")]

    @classmethod
    def read(cls, path: Path) -> "Place":
        """Raises TensorRefused: there is none, or it can't be used."""
        if not path.exists():
            raise TensorRefused(f"Its owner has no SPU for comparisons. To install it: {INSTALL}.")
        try:
            found = cls.model_validate(tomllib.loads(path.read_text()))
        except (ValidationError, tomllib.TOMLDecodeError):
            raise TensorRefused(
                f"Its owner's {path.name} is not what it must be: {INSTALL}."
            ) from None
        if not Path(found.python).exists():
            raise TensorRefused(f"The python of its owner's {path.name} isn't there: {INSTALL}.")
        return found


class Comparing:
    """One domain's part in one comparison: an offer, then the run, once.

    Args:
        agreement: on this one comparison.
    """

    def __init__(
        self, me: str, agreement: Agreement, signing_key: Ed25519PrivateKey, place: Place
    ) -> None:
        self.me = me
        self.agreement = agreement
        self._place = place
        self._key = EphemeralKey.generate()
        self._tls_key = ec.generate_private_key(ec.SECP256R1())
        certificate = _certificate(self._tls_key).public_bytes(Encoding.PEM).decode()
        public = self._key.public_key
        message = offer_message(agreement, me, public, certificate, place.address)
        self.offer = Offer(
            domain=me,
            key=public,
            certificate=certificate,
            address=place.address,
            signature=signing_key.sign(message),
        )
        self.transcript = b""

    def run(
        self, offers: Sequence[Offer], job: dict[str, Any], share: Elements, within_s: int
    ) -> Elements:
        """This domain's share of the result, flat.

        Args:
            job: as in `Comparison.job`.
            share: this domain's share of what is compared; it is masked anew before it is used.
            within_s: seconds that SPU may take; it is ended then.

        Raises:
            SharingRefused: the offers aren't everybody's, or ours isn't ours, or SPU failed.
        """
        known = verify_offers(self.agreement, offers)
        if known[self.me] != self.offer:
            raise SharingRefused(self.me, "the offer under our own name isn't of this comparison")
        self.transcript = offers_transcript(self.agreement, known)
        if not _AT_WORK.acquire(blocking=False):
            raise SharingRefused(self.me, "another comparison is under way here; try again")
        try:
            return self._between(list(known.values()), job, share, within_s)
        finally:
            self._key.erase()
            _AT_WORK.release()

    def _between(
        self, offers: list[Offer], job: dict[str, Any], share: Elements, within_s: int
    ) -> Elements:
        """What SPU makes of the share, masked anew before and after."""
        keys = {each.domain: each.key for each in offers}
        given, taken = share.copy(), hashlib.sha256(_result(self.transcript)).digest()
        apply(given, pair_masks(self.transcript, self.me, self._key, keys))
        found = self._computed(offers, job, given, within_s)
        if found.size != share.size:
            raise SharingRefused(self.me, "SPU gave a result of another length")
        apply(found, pair_masks(taken, self.me, self._key, keys))
        return found

    def _computed(
        self, offers: list[Offer], job: dict[str, Any], share: Elements, within_s: int
    ) -> Elements:
        told = {
            **job,
            "id": self.transcript.hex()[:16],
            "rank": [each.domain for each in offers].index(self.me),
            "addresses": [each.address for each in offers],
            "certificates": [each.certificate if each.domain != self.me else "" for each in offers],
            "ports": free_ports(len(offers)),
            "seconds": min(_LINK_SECONDS, within_s),
        }
        others = [each.certificate for each in offers if each.domain != self.me]
        secret = self._tls_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        # A folder that only this account may enter, and that is gone afterwards.
        with tempfile.TemporaryDirectory(prefix="coterie-spu-") as name:
            folder = Path(name)
            (folder / "job.json").write_text(json.dumps(told))
            (folder / "key.pem").write_bytes(secret)
            (folder / "own.pem").write_text(self.offer.certificate)
            (folder / "peers.pem").write_text("".join(others))
            try:
                subprocess.run(
                    [sys.executable, "-m", _WALLS, self._place.python, str(_PARTY), name],
                    input=np.ascontiguousarray(share, "<u8").tobytes(),
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    env=clean_environment(),
                    cwd=name,
                    timeout=min(_SECONDS, within_s),
                    check=True,
                )
                return np.frombuffer((folder / "result").read_bytes(), "<u8").copy()
            except (OSError, ValueError, subprocess.SubprocessError) as error:
                late = isinstance(error, subprocess.TimeoutExpired)
                what = f"no result within {min(_SECONDS, within_s)} s; " if late else ""
                raise SharingRefused(
                    self.me, f"SPU failed here: {what}a partner's may be away, or its address wrong"
                ) from None


def _result(transcript: bytes) -> bytes:
    return framed(b"coterie-compared-result-v1", transcript)


def _certificate(key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    """Of a key for one comparison, by itself; peers know it because the node's key signed it."""
    # Certificates are looked up by their subject, so no two may share it.
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, secrets.token_hex(16))])
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )


def free_ports(count: int) -> list[int]:
    """Ports of this machine that nobody listens on at the moment.

    Below those that systems give to callers: one of these could be gone again before it is used.
    """
    found: list[int] = []
    with ExitStack() as listeners:
        for port in secrets.SystemRandom().sample(_LOCAL_PORTS, len(_LOCAL_PORTS)):
            listener = listeners.enter_context(socket.socket())
            with suppress(OSError):
                listener.bind(("127.0.0.1", port))
                found.append(port)
            if len(found) == count:
                return found
    raise OSError("This machine has no free ports.")
