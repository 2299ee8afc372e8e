"""The lines between parties of a comparison: mutual TLS 1.3, each party by its very certificate."""

import asyncio
import ssl
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from domains.comparing import _certificate, free_ports
from domains.spu_lines import Lines

ALL = range(3)


@dataclass(frozen=True)
class Party:
    """One of three, with a folder as a comparison makes it."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate
    folder: Path
    job: dict[str, Any]

    @property
    def address(self) -> tuple[str, int]:
        host, _, port = self.job["addresses"][self.job["rank"]].rpartition(":")
        return host, int(port)


def pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(Encoding.PEM).decode()


def write_own(folder: Path, key: ec.EllipticCurvePrivateKey, chain: str) -> None:
    secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (folder / "key.pem").write_bytes(secret)
    (folder / "own.pem").write_text(chain)


@pytest.fixture
def parties(tmp_path: Path) -> list[Party]:
    keys = [ec.generate_private_key(ec.SECP256R1()) for _ in ALL]
    made = [_certificate(key) for key in keys]
    addresses = [f"127.0.0.1:{port}" for port in free_ports(3)]
    found = []
    for rank in ALL:
        folder = tmp_path / str(rank)
        folder.mkdir()
        write_own(folder, keys[rank], pem(made[rank]))
        (folder / "peers.pem").write_text("".join(pem(made[r]) for r in ALL if r != rank))
        job = {
            "rank": rank,
            "addresses": addresses,
            "certificates": [pem(made[r]) if r != rank else "" for r in ALL],
            "ports": free_ports(3),
            "seconds": 30,
        }
        found.append(Party(keys[rank], made[rank], folder, job))
    return found


def while_open(parties: list[Party], work: Callable[[list[bytes]], Awaitable[None]]) -> list[bytes]:
    """What came to the three SPUs, each of which says PARTY-n back, while `work` was done."""
    heard: list[bytes] = []

    def spu(rank: int) -> Callable[[Any, Any], Awaitable[None]]:
        async def answer(reader: Any, writer: Any) -> None:
            heard.append(await reader.read(100))
            writer.write(f"PARTY-{rank}".encode())
            await writer.drain()
            writer.close()

        return answer

    async def main() -> None:
        for rank, party in enumerate(parties):
            await asyncio.start_server(spu(rank), "127.0.0.1", party.job["ports"][rank])
        ready = [threading.Event() for _ in parties]
        carried = [
            asyncio.create_task(Lines(party.job, party.folder)._carry(event))
            for party, event in zip(parties, ready, strict=True)
        ]
        for event in ready:
            assert await asyncio.to_thread(event.wait, 30)
        await work(heard)
        for task in carried:
            task.cancel()

    asyncio.run(main())
    return heard


async def said_to(port: int, host: str = "127.0.0.1", **tls: Any) -> bytes:
    """What comes back to b"hello"; nothing, if the connection is closed on it."""
    with suppress(OSError):
        reader, writer = await asyncio.open_connection(host, port, **tls)
        with suppress(OSError):
            writer.write(b"hello")
            await writer.drain()
            return bytes(await reader.read(100))
    return b""


def test_each_party_reaches_each_other(parties: list[Party]) -> None:
    async def work(_: list[bytes]) -> None:
        for rank, party in enumerate(parties):
            for other in ALL:
                if other != rank:
                    found = await said_to(party.job["ports"][other])
                    assert found == f"PARTY-{other}".encode()

    assert while_open(parties, work) == [b"hello"] * 6


def strangers(parties: list[Party], folder: Path) -> Iterator[ssl.SSLContext | None]:
    """Who speaks in clear, shows nothing, something of its own, or what a party made for it."""

    def context(key: Any = None, chain: str = "") -> ssl.SSLContext:
        found = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        found.check_hostname, found.verify_mode = False, ssl.CERT_NONE
        if key is not None:
            write_own(folder, key, chain)
            found.load_cert_chain(folder / "own.pem", folder / "key.pem")
        return found

    yield None
    yield context()
    mine = ec.generate_private_key(ec.SECP256R1())
    yield context(mine, pem(_certificate(mine)))
    # Trusted as an authority by TLS itself: what a peer vouches for isn't the peer.
    template, issuer = _certificate(mine), parties[1]
    vouched = (
        x509.CertificateBuilder()
        .subject_name(template.subject)
        .issuer_name(issuer.certificate.subject)
        .public_key(mine.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(template.not_valid_before_utc)
        .not_valid_after(template.not_valid_after_utc)
        .sign(issuer.key, hashes.SHA256())
    )
    yield context(mine, pem(vouched) + pem(issuer.certificate))
    old = context(issuer.key, pem(issuer.certificate))
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    yield old


def test_nobody_else_gets_a_word_through(parties: list[Party], tmp_path: Path) -> None:
    async def work(heard: list[bytes]) -> None:
        host, port = parties[0].address
        for tls in strangers(parties, tmp_path):
            assert await said_to(port, host, ssl=tls) == b""
        assert heard == []
        # The same way in is open to a party.
        assert await said_to(parties[1].job["ports"][0]) == b"PARTY-0"

    assert while_open(parties, work) == [b"hello"]


def test_nothing_is_said_to_who_shows_another_certificate(parties: list[Party]) -> None:
    """North's own certificate is good, but it isn't at south's address that it belongs."""
    swapped = [0, 2, 1]
    addresses = [parties[0].job["addresses"][rank] for rank in swapped]
    job = {**parties[0].job, "addresses": addresses}

    async def work(_: list[bytes]) -> None:
        for other in (1, 2):
            assert await said_to(parties[0].job["ports"][other]) == b""

    changed = [Party(parties[0].key, parties[0].certificate, parties[0].folder, job), *parties[1:]]
    # A line is open before certificates are compared, and closed before a word passes.
    assert set(while_open(changed, work)) <= {b""}
