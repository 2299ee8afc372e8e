"""The strict reader: what Syft writes is read back; nothing else is built, called or allocated."""

from datetime import datetime
from itertools import islice
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from syft.client.api import SyftAPICall
from syft.serde.recursive_primitives import iterable_schema
from syft.service.response import SyftSuccess
from syft.service.user.user_roles import ServiceRole
from syft.types.uid import UID

from network.arrays import MAX_ARRAY_BYTES
from network.capnproto import BytesRefused, Frame
from network.reader import MAX_DEPTH, read
from network.reader_names import ANSWERS, OWNER, PLAIN, STORED, Names
from tests.hostile.attacks import array, blob_of, crafted, packed, sequence
from tests.network import fuzzing

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**200), 2**200) | st.text() | st.binary()
    | st.floats(allow_nan=False),
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)  # fmt: skip
DTYPES = ("bool", "int8", "uint16", "int32", "uint64", "float16", "float32", "float64")


@settings(max_examples=200, deadline=None)
@given(VALUES)
def test_plain_values_are_read_as_they_were(value: Any) -> None:
    assert read(packed(value), PLAIN) == value


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (0,), (7,), (3, 4), (2, 0, 3), (2, 3, 5)])
@pytest.mark.parametrize("order", ["C", "F"])
def test_arrays_are_read_as_they_were(dtype: str, shape: tuple[int, ...], order: Any) -> None:
    if dtype == "bool" and shape == ():
        pytest.skip("Arrow can't write it")
    sent = np.asarray(np.arange(int(np.prod(shape))).reshape(shape), dtype=dtype, order=order)
    found = read(packed(sent), PLAIN)
    assert found.dtype == sent.dtype
    assert found.shape == sent.shape
    assert np.array_equal(found, sent)
    assert found.flags.writeable


def test_calls_and_answers_are_read_as_they_were() -> None:
    sent = SyftAPICall(server_uid=UID(), path="p", args=[UID()], kwargs={"a": np.arange(3)})
    found = read(packed(sent), PLAIN)
    assert (found.id, found.server_uid, found.path) == (sent.id, sent.server_uid, sent.path)
    assert found.args == sent.args
    assert read(packed(ServiceRole.GUEST), OWNER) is ServiceRole.GUEST
    assert read(packed(SyftSuccess(message="m", value=2)), ANSWERS).value == 2
    frame = pd.DataFrame({"user": ["a", "b"], "item": [1, 2]})
    assert read(packed(frame), STORED).equals(frame)


def test_each_list_holds_less_than_the_next() -> None:
    assert PLAIN.values < OWNER.values < ANSWERS.values < STORED.values
    assert not PLAIN.kinds
    assert not OWNER.kinds
    for dangerous in ("HTTPConnection", "PythonConnection", "UserCode", "SubmitUserCode", "Worker",
                      "UserPolicy", "OnDiskBlobDeposit", "BlobRetrievalByURL", "SQLiteDBConfig",
                      "TwinAPIEndpoint", "defaultdict", "pathlib_PosixPath", "TypeVar", "BlobFile",
                      "SeaweedFSConfig", "ZMQClientConfig", "Datasite", "APIModule"):  # fmt: skip
        assert dangerous not in STORED.values | STORED.kinds


def test_a_frame_yields_no_more_bytes_than_it_has() -> None:
    message = iterable_schema.new_message()
    message.init("values", 1).init(0, 1)[0] = bytes(1000)
    frame = Frame(bytes(message.to_bytes()), data=0, pointers=1)
    assert len(frame.content(frame.items(frame.pointer(0), most=1)[0])) == 1000
    with pytest.raises(BytesRefused, match="more bytes than it has"):
        frame.content(frame.items(frame.pointer(0), most=1)[0])


def test_depth_and_unpacked_size_are_bounded() -> None:
    blob = packed(1)
    for _ in range(MAX_DEPTH - 1):
        blob = sequence("list", blob)
    assert read(blob, PLAIN)
    with pytest.raises(BytesRefused, match="too deeply"):
        read(sequence("list", blob), PLAIN)
    third = packed(np.zeros(MAX_ARRAY_BYTES // 3, np.uint8))
    assert read(third, PLAIN).size
    with pytest.raises(BytesRefused, match="unpacks to at most"):
        read(sequence("list", third, third, third, third), PLAIN)


@pytest.mark.parametrize(
    "blob",
    [
        array(b"x", 2**50, "int8"), array(b"x", 8, "object"), array(b"x", 8, "O"),
        array(b"x", 8, "U10"), array(b"x", 8, "datetime64[ns]"), blob_of("int", bytes(65)),
        crafted("UID", {"value": packed(2**62)}), crafted("UID", {}),
        crafted("UID", {"value": packed(bytes(16)), "extra": packed(1)}),
        crafted("SyftAPICall", {"path": packed("x")}), blob_of("SyftAPICall", b""),
    ],
)  # fmt: skip
def test_what_would_allocate_or_be_made_up_is_refused(blob: bytes) -> None:
    for names in (PLAIN, OWNER, ANSWERS, STORED):
        with pytest.raises(BytesRefused):
            read(blob, names)


def test_what_the_fuzzer_kept_and_some_more_is_refused_or_read() -> None:
    """3,000 inputs and the corpus; a million are given by `python -m benchmarks.fuzz`."""
    blobs = [*fuzzing.kept(), *fuzzing.seeds(), *islice(fuzzing.inputs(seed=1, frames=False), 3000)]
    said = [fuzzing.give(blob) for blob in blobs]
    taken = [each for each in said if "read" in each.split(" | ")]
    assert 50 < len(taken) < len(said) - 50
    assert len(set(said)) > 40, "the inputs reach many different refusals"


def test_times_are_read_as_they_were() -> None:
    names = PLAIN | Names(frozenset({"datetime_datetime"}))
    now = datetime(2024, 5, 6, 7, 8, 9, 10)
    assert read(packed(now), names) == now
