"""A malicious server against whoever calls it: coterie's client, Syft's own, and the hub's."""

import builtins
import contextlib
import gzip
import io
import json
import tracemalloc
from collections.abc import Callable
from functools import lru_cache
from inspect import Parameter
from typing import Any

import numpy as np
import pandas as pd
import pytest
import requests
import syft as sy
from blake3 import blake3
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from syft.client.api import SyftAPIData
from syft.client.client import HTTPConnection
from syft.server.credentials import SyftSigningKey
from syft.types.errors import SyftException

import coterie  # noqa: F401
from coterie.finding import Verdict
from coterie.outside import examine_from_outside
from network.answers import MAX_ANSWER_BYTES, AnswerRefused
from network.capnproto import BytesRefused
from network.client import LoginFailed, NodeRefused, NodeUnreachable, log_in
from network.hub import HubError, announce, directory, new_card
from tests.hostile.attacks import alias, blob_of, crafted, list_of_nothing, of_one_hash, packed
from tests.hostile.villain import NODE, OTHER, Heard, Villain, client_of

REFUSALS = (
    AnswerRefused, BytesRefused, LoginFailed, NodeRefused, NodeUnreachable, HubError,
    requests.RequestException, SyftException,
)  # fmt: skip


def test_the_digests_of_an_answer_s_parts_are_those_of_what_came(villain: Villain) -> None:
    villain.answers["*"] = b"Omagic-and-words"
    heard = Heard()
    for sizes in ("", "1,5,10"):
        villain.sizes = sizes
        assert client_of(villain).stream("masked", into=heard) == 15
    assert heard.octets == 2 * b"magic-and-words"
    parts = (b"magic", b"-and-words")
    assert heard.parts == [(len(part), blake3(part).digest()) for part in parts]


@pytest.mark.parametrize(
    ("announced", "sealed", "came"),
    [
        ("", "1,5,10", b"Omagic-and-words"),
        ("1,5,10", "", b"Omagic-and-words"),
        ("1,6,9", "1,5,10", b"Omagic-and-words"),
        ("16", "1,5,10", b"Omagic-and-words"),
        ("1,5,10", "1,5,10", b"Omagic-and-wordz"),
        ("1,5,10", "1,5,10", b"Omagic-and-word"),
        ("1,5,10", "1,5,10", b"Omagic-and-words."),
        ("1,5,10,0", "1,5,10,0", b"Omagic-and-words"),
        ("1,5,-1,11", "1,5,10", b"Omagic-and-words"),
        ("1" + ",1" * 8, "1" + ",1" * 8, b"Omagic-an"),
        ("9" * 400, "1,5,10", b"Omagic-and-words"),
    ],
)
def test_parts_that_were_not_sealed_are_refused(
    villain: Villain, announced: str, sealed: str, came: bytes
) -> None:
    villain.answers["*"], villain.sealed = came, b"Omagic-and-words"
    villain.sizes, villain.announced = sealed, announced
    heard = Heard()
    with pytest.raises(NodeRefused, match=r"not signed by its known key|The answer"):
        client_of(villain).stream("masked", into=heard)
    assert not heard.parts


PROBE = "__import__('builtins').__dict__.__setitem__('coterie_was_run', True)"
"""What it does can be seen afterwards."""


def frame_of(frame: pd.DataFrame, **more: Any) -> bytes:
    """A data frame as Syft sends it."""
    sink = io.BytesIO()
    frame.to_parquet(sink, index=False, **more)
    return blob_of("pandas_dataframe", sink.getvalue())


EVIL = {
    "a generic alias of os.system": alias("os.system", "id"),
    "a generic alias of types.FunctionType": alias("types.FunctionType", 1),
    "a special generic alias of a class": blob_of("_SpecialGenericAlias", b"Worker:1"),
    "a class to be called later": blob_of("type", b"OnDiskBlobDeposit:1"),
    "a file deposit": crafted("OnDiskBlobDeposit", {"path": packed("/tmp/x")}),
    "a retrieval from another host": crafted("BlobRetrievalByURL", {"url": packed("http://evil")}),
    "a connection": crafted("HTTPConnection", {"url": packed("http://evil.example")}),
    "a policy's code": crafted("UserPolicy", {"byte_code": packed("x")}),
    "submitted code": crafted("UserCode", {"raw_code": packed("import os")}),
    "an undeclared field": crafted("SyftSuccess", {"message": packed("x"), "__dict__": packed(1)}),
    "a terabyte of id": crafted("UID", {"value": packed(2**40)}),
    "bytes that crash Cap'n Proto's reader": packed({"a": [1, 2, 3]}).replace(b"\x01", b"\xfe"),
    "a broken data frame": blob_of("pandas_dataframe", b"PAR1" + bytes(200) + b"PAR1"),
    "text in place of a type": alias("typing.List", PROBE),
    "text in a union": blob_of("UnionType", packed((PROBE, "int"))),
    "text as what a method returns": blob_of(
        "inspect_Signature", packed({"parameters": [], "return_annotation": PROBE})
    ),
    "text as the type of a parameter": blob_of(
        "inspect_Signature",
        packed({
            "parameters": [Parameter("x", Parameter.POSITIONAL_OR_KEYWORD, annotation=PROBE)],
            "return_annotation": Parameter.empty,
        }),
    ),
    "a path of attributes as a type": alias("typing.Dict", "syft.os.system", "int"),
    "a data frame by another codec": frame_of(
        pd.DataFrame({"item": np.zeros(10, int)}), compression="zstd"
    ),
    "a data frame of objects": frame_of(pd.DataFrame({"item": [[1, 2], [3]]})),
    "junk": b"junk",
    "nothing": b"",
}  # fmt: skip

BIG = {
    "keys of one hash": lambda: of_one_hash(20_000),
    "ten million nothings": lambda: list_of_nothing(10**7),
    "sixteen million rows in a kilobyte": lambda: frame_of(
        pd.DataFrame({"item": np.zeros(2**24, int)})
    ),
    "a gigabyte of text by a dictionary": lambda: frame_of(
        pd.DataFrame({"item": ["x" * 2**18] * 2**12})
    ),
    "a thousand columns of nothing": lambda: frame_of(
        pd.DataFrame({f"c{n}": pd.Series([None] * 2**14, dtype=object) for n in range(1001)})
    ),
}  # fmt: skip


@lru_cache
def evil(what: str) -> bytes:
    return BIG[what]() if what in BIG else EVIL[what]


@pytest.mark.parametrize("what", [*EVIL, *BIG])
def test_a_pinned_node_gone_bad_gets_nothing_run_on_the_caller(what: str, villain: Villain) -> None:
    inner = crafted("SyftAPIData", {"data": evil(what)})
    villain.answers["*"] = villain.signed(inner)
    with pytest.raises(NodeRefused, match="unreadable answer"):
        client_of(villain).call("describe")


@pytest.mark.parametrize("what", [*EVIL, *BIG])
def test_a_login_answer_runs_nothing(what: str, villain: Villain) -> None:
    villain.answers["*"] = evil(what)
    with pytest.raises(LoginFailed):
        log_in(villain.url, "a@b.example", "a password", str(NODE.verify_key))


@pytest.mark.parametrize("what", [*EVIL, *BIG])
def test_syfts_own_client_runs_nothing_either(what: str, villain: Villain) -> None:
    villain.answers["*"] = evil(what)
    with pytest.raises(REFUSALS):
        sy.login(url=villain.url, email="a@b.example", password="a password")
    connection = HTTPConnection(url=villain.url)
    with pytest.raises(REFUSALS):
        connection.get_api(SyftSigningKey.generate(), "dev")


def test_nothing_of_it_was_run() -> None:
    assert not hasattr(builtins, "coterie_was_run")


def test_a_type_that_text_stands_for_would_run_it_in_syfts_client() -> None:
    """Why there is no text where types are: the same type, made by hand, is evaluated."""
    from syft.client.api import _check_type

    with contextlib.suppress(Exception):
        _check_type([1], list["__import__('builtins').__dict__.__setitem__('coterie_seen', True)"])  # type: ignore[misc]
    assert builtins.__dict__.pop("coterie_seen", False)


def sealed_by_another(villain: Villain) -> None:
    villain.key = OTHER.signing_key


def unsealed(villain: Villain) -> None:
    villain.key = None


def for_another_request(villain: Villain) -> None:
    villain.nonce = "0" * 64


def inner_key(villain: Villain) -> None:
    villain.answers["*"] = villain.signed(packed(SyftAPIData(data="lie")), OTHER)


def endless(villain: Villain) -> None:
    villain.answers["*"] = bytes(90 * 2**20)


def bomb(villain: Villain) -> None:
    villain.headers["Content-Encoding"] = "gzip"
    villain.answers["*"] = gzip.compress(bytes(200 * 2**20))


def redirect(villain: Villain) -> None:
    villain.status, villain.headers["Location"] = 302, "http://127.0.0.1:9/"


def redirect_with_a_bomb(villain: Villain) -> None:
    redirect(villain)
    bomb(villain)


def chunked(villain: Villain) -> None:
    villain.headers["Transfer-Encoding"] = "chunked"
    villain.answers["*"] = b"1" * 2**20


def failing(villain: Villain) -> None:
    villain.status, villain.answers["*"] = 500, b"\x1b[2J" + b"x" * 10_000


@pytest.mark.parametrize(
    "trick",
    [
        sealed_by_another,
        unsealed,
        for_another_request,
        inner_key,
        endless,
        bomb,
        redirect,
        redirect_with_a_bomb,
        chunked,
        failing,
    ],
    ids=lambda trick: trick.__name__,
)
def test_answers_must_be_the_nodes_own_to_this_request(
    trick: Callable[[Villain], None], villain: Villain
) -> None:
    villain.answers["*"] = villain.signed(packed(SyftAPIData(data="true")))
    assert client_of(villain).call("describe") == "true"
    trick(villain)
    client = client_of(villain)
    tracemalloc.start()
    try:
        with pytest.raises(NodeRefused) as refused:
            client.call("describe")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert str(refused.value).isprintable()
    assert peak < 2.5 * MAX_ANSWER_BYTES, "an answer takes little more memory than its bytes"
    if trick in (redirect_with_a_bomb, bomb, chunked):
        assert peak < 2**24, "nothing is unpacked"


@pytest.mark.parametrize(
    "trick",
    [sealed_by_another, unsealed, for_another_request, endless, bomb, redirect, failing],
    ids=lambda trick: trick.__name__,
)
def test_octets_that_went_to_a_file_are_the_nodes_own_or_refused(
    trick: Callable[[Villain], None], villain: Villain
) -> None:
    """They are on the disk before the seal is checked, so only a call that returns gives them."""
    villain.answers["*"] = b"O" + bytes(range(256)) * 5000
    heard = Heard()
    assert client_of(villain).stream("reveal", into=heard) == 5000 * 256
    assert heard.octets == bytes(range(256)) * 5000
    trick(villain)
    with pytest.raises(NodeRefused):
        client_of(villain).stream("reveal", into=heard)


@pytest.mark.parametrize(
    "answer",
    ["", "{", "[" * 100_000, "9" * 5000, 5, None, [1], np.arange(3)],
    ids=lambda answer: str(answer)[:9],
)
def test_what_should_be_json_and_is_not_is_a_refusal(answer: object, villain: Villain) -> None:
    villain.answers["*"] = villain.signed(packed(SyftAPIData(data=answer)))
    with pytest.raises(NodeRefused, match="something else than JSON"):
        client_of(villain).read("describe")


@pytest.mark.parametrize("answer", [b"Rno", b"Ttext", b"Xjunk", b"", b"T\xff"])
def test_anything_but_octets_is_no_file(answer: bytes, villain: Villain) -> None:
    villain.answers["*"] = answer
    heard = Heard()
    with pytest.raises(NodeRefused):
        client_of(villain).stream("reveal", into=heard)
    assert not heard.octets


@pytest.mark.parametrize(
    "trick", [sealed_by_another, unsealed, for_another_request, endless, redirect],
    ids=lambda trick: trick.__name__,
)  # fmt: skip
def test_syfts_own_client_checks_them_too(
    trick: Callable[[Villain], None], villain: Villain
) -> None:
    connection = HTTPConnection(url=villain.url)
    assert connection.get_server_metadata(SyftSigningKey.generate()).name == "villain"
    villain.answers["*"] = packed(SyftAPIData(data="lie"))
    trick(villain)
    with pytest.raises(REFUSALS):
        connection.login("a@b.example", "a password")


def test_the_password_is_not_sent_to_a_node_with_another_key(villain: Villain) -> None:
    with pytest.raises(LoginFailed, match="another one"):
        log_in(villain.url, "a@b.example", "a password", str(OTHER.verify_key))
    villain.describe(verify_key=str(OTHER.verify_key))
    with pytest.raises(LoginFailed, match="did not sign"):
        log_in(villain.url, "a@b.example", "a password")


@pytest.mark.parametrize(
    "answer", [b"[" * 50_000, b"{}", b"[1]", b"[{}]", b"null", b"\xff", bytes(90 * 2**20)],
    ids=["nested", "object", "number", "empty card", "null", "not text", "endless"],
)  # fmt: skip
def test_a_lying_hub_gets_no_further_than_its_directory(answer: bytes, villain: Villain) -> None:
    villain.answers["/directory"] = answer
    with contextlib.suppress(HubError):
        assert directory(villain.url) == {}


def test_nobody_is_sent_on_to_another_host(villain: Villain) -> None:
    """Scientists, the doctor, and domains that announce themselves: a redirect ends there."""
    elsewhere = Villain()
    villain.status, villain.headers["Location"] = 302, elsewhere.url
    bomb(villain)
    villain.answers.clear()
    card = new_card("east", "http://east.example", "0" * 64, Ed25519PrivateKey.generate())
    with pytest.raises(HubError):
        announce(villain.url, card)
    with pytest.raises(HubError):
        directory(villain.url)
    with pytest.raises(NodeUnreachable):
        log_in(villain.url, "a@b.example", "a password")
    assert any(found.verdict is Verdict.BAD for found in examine_from_outside(villain.url))
    assert villain.asked > 3
    assert elsewhere.asked == 0
    elsewhere.server.shutdown()
    elsewhere.server.server_close()


def test_a_hub_can_not_forge_or_change_a_card(villain: Villain) -> None:
    card = new_card("east", "http://east.example", "0" * 64, Ed25519PrivateKey.generate())
    changed = [
        card.model_copy(update={"url": "http://evil.example"}),
        card.model_copy(update={"node_key": str(NODE.verify_key)}),
        card.model_copy(update={"owner_key": "1" * 64}),
        card.model_copy(update={"signature": ""}),
    ]
    villain.answers["/directory"] = json.dumps([c.model_dump() for c in changed]).encode()
    assert directory(villain.url) == {}
    villain.answers["/directory"] = json.dumps([card.model_dump()]).encode()
    assert directory(villain.url) == {"east": card}
