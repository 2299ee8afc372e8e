"""Masked inputs as files: a round's memory doesn't grow with its domains, nor with a crash."""

import json
import tracemalloc
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from network.smpc import ring
from network.smpc.ckks.transcript import ciphertexts_file
from network.smpc.inputs import (
    arriving,
    coming_masked,
    forget_inputs,
    masked_file,
    take_masked,
)
from network.smpc.masks import CHUNK_BYTES
from network.smpc.messages import SharingRefused, pack_masked
from network.smpc.transcript import verify_transcript, write_transcript
from tests.network.roster_of_domains import Domains

LENGTH = 500_000


def into_files(domains: Domains, folder: Path) -> Any:
    """A hub that takes masked inputs from the wire into files."""

    def exchange(phase: str, arguments: dict) -> dict[str, Any]:
        answers = domains.exchange(phase, arguments)
        if phase == "reveal":
            return {name: taken(domains, folder, name, answer) for name, answer in answers.items()}
        return answers

    return exchange


def taken(domains: Domains, folder: Path, name: str, answer: Any) -> Any:
    content = pack_masked(*answer).whole().tobytes()
    with closing(coming_masked(folder, domains.agreement, name)) as coming:
        for begin in range(0, len(content), 999):
            coming.write(content[begin : begin + 999])
    return take_masked(domains.agreement, coming)


@pytest.mark.parametrize("bits", [32, 64])
def test_a_total_is_opened_from_files_and_checked_again(bits: int, tmp_path: Path) -> None:
    domains = Domains(3, 3, 1, length=LENGTH // 10 + 7, bits=bits)
    opened = domains.run(into_files(domains, tmp_path))
    np.testing.assert_array_equal(opened.total, domains.sum_of(opened.survivors))
    write_transcript(tmp_path, domains.agreement, opened.transcript, opened.total)
    np.testing.assert_array_equal(verify_transcript(domains.agreement, tmp_path), opened.total)
    assert not list(tmp_path.glob("*.new"))


def test_opening_takes_the_memory_of_one_vector_whatever_the_number_of_domains(
    tmp_path: Path,
) -> None:
    domains = Domains(8, 8, 1, length=LENGTH)
    exchange, peak = into_files(domains, tmp_path), []

    def watched(phase: str, arguments: dict) -> dict[str, Any]:
        answers: dict[str, Any] = exchange(phase, arguments)
        if phase == "unmask":
            domains.values.clear()
            tracemalloc.start()
        return answers

    opened = domains.run(watched)
    peak.append(tracemalloc.get_traced_memory()[1])
    tracemalloc.stop()
    write_transcript(tmp_path, domains.agreement, opened.transcript, opened.total)
    tracemalloc.start()
    verify_transcript(domains.agreement, tmp_path)
    peak.append(tracemalloc.get_traced_memory()[1])
    tracemalloc.stop()
    # The total, one piece per domain, some more of work; one whole input more would not fit.
    assert max(peak) < 8 * LENGTH + 8 * CHUNK_BYTES + 5 * CHUNK_BYTES


def test_a_beginning_that_a_crash_left_is_never_taken_for_an_input(tmp_path: Path) -> None:
    domains = Domains(3, 3, 1)
    kept = masked_file(tmp_path, domains.agreement, "domain-0")
    arriving(kept).write_bytes(b"Z64\x01 half of it")
    opened = domains.run(into_files(domains, tmp_path))
    np.testing.assert_array_equal(opened.total, domains.sum_of(opened.survivors))
    assert ring.framed_file(kept, 16, 64).path == kept


@pytest.mark.parametrize("aggregation", ["smpc", "ckks"])
def test_an_attempt_that_opened_nothing_keeps_its_messages_alone(
    aggregation: str, tmp_path: Path
) -> None:
    agreement = Domains(3, 3, 1, aggregation=aggregation).agreement
    file = masked_file if aggregation == "smpc" else ciphertexts_file
    (tmp_path / "begun.json").touch()
    for name in agreement.names:
        file(tmp_path, agreement, name).touch()
        arriving(file(tmp_path, agreement, name)).touch()
    forget_inputs(tmp_path)
    assert [kept.name for kept in tmp_path.iterdir()] == ["begun.json"]


def without(kind: str) -> Callable[[bytes], bytes]:
    """The kept messages without those of a kind."""
    return lambda kept: json.dumps(json.loads(kept) | {kind: []}).encode()


def doubled(kind: str) -> Callable[[bytes], bytes]:
    """The kept messages with the last one of a kind twice."""

    def change(kept: bytes) -> bytes:
        messages = json.loads(kept)
        messages[kind].append(messages[kind][-1])
        return json.dumps(messages).encode()

    return change


@pytest.mark.parametrize(
    ("file", "change", "culprit"),
    [
        ("masked-02.ring", lambda kept: kept[:-1] + bytes([kept[-1] ^ 1]), "domain-1"),
        ("masked-02.ring", lambda kept: kept[:-8], "the coordinator"),
        ("masked-02.ring", lambda kept: kept + bytes(8), "the coordinator"),
        ("total.ring", lambda kept: kept[:-1] + bytes([kept[-1] ^ 1]), "the coordinator"),
        ("total.ring", lambda kept: kept[:-8], "the coordinator"),
        ("messages.json", lambda kept: kept[: len(kept) // 2], "the coordinator"),
        ("messages.json", lambda kept: b'{"adverts":' + b"[" * 10**5, "the coordinator"),
        ("messages.json", without("receipts"), "the coordinator"),
        ("messages.json", doubled("unmaskings"), "the coordinator"),
        ("messages.json", doubled("confirmations"), "domain-2"),
        ("messages.json", doubled("sealed"), "the coordinator"),
    ],
)
def test_a_kept_attempt_that_was_changed_or_cut_is_refused(
    file: str, change: Any, culprit: str, tmp_path: Path
) -> None:
    domains = Domains(3, 3, 1)
    opened = domains.run(into_files(domains, tmp_path))
    write_transcript(tmp_path, domains.agreement, opened.transcript, opened.total)
    (tmp_path / file).write_bytes(change((tmp_path / file).read_bytes()))
    with pytest.raises(SharingRefused) as refused:
        verify_transcript(domains.agreement, tmp_path)
    assert refused.value.culprit == culprit


def test_a_file_that_shrinks_while_it_is_read_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "a.ring"
    path.write_bytes(ring.pack(np.arange(10, dtype=np.uint64)))
    frame = ring.framed_file(path, 10)
    read = np.concatenate([piece.copy() for piece in ring.pieces(frame, 3)])
    np.testing.assert_array_equal(read, np.arange(10))
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(ring.RingError, match="ends before"):
        list(ring.pieces(frame, 3))
