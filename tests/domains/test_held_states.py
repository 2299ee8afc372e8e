"""A state that comes in parts: in order, bounded, and the one that its digest names."""

from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from blake3 import blake3

from domains.refusals import RoundRefused
from tests.domains.participating_domains import Domains, domains_in


@pytest.fixture
def domains(tmp_path: Path) -> Domains:
    return domains_in(tmp_path)


def parts_of(content: bytes, size: int) -> list[tuple[int, bytes]]:
    return [(begin, content[begin : begin + size]) for begin in range(0, len(content), size)]


def test_a_run_ends_with_a_state_of_any_length(tmp_path: Path) -> None:
    """What is longer than one message comes in parts, at the end as in a round."""
    domains = domains_in(tmp_path, remembered=1000)
    state = np.arange(1000, dtype=np.float32)
    content = safetensors.numpy.save({"w": state})
    part, plan_hash = domains.parts["east"], domains.plan.hash
    digest = blake3(content).hexdigest()
    with pytest.raises(RoundRefused, match="holds no such state"):
        part.finish(plan_hash, digest)
    for begin, piece in parts_of(content, 999):
        part.hold(plan_hash, digest, len(content), begin, piece)
    part.finish(plan_hash, digest)
    np.testing.assert_array_equal(domains.models["east"]["w"], state)
    assert part.model_file(plan_hash).read_bytes() == content
    with pytest.raises(RoundRefused, match="no run of this plan"):
        part.hold(plan_hash, digest, len(content), 0, content)


@pytest.mark.parametrize(
    ("told", "why"),
    [
        ([(4, b"late")], "in order"),
        ([(0, b"0123"), (0, b"0123"), (8, b"89")], "in order"),
        ([(0, b"0123"), (2, b"23")], "in order"),
        ([(0, b"0123456789ab")], "beyond"),
        ([(0, b"0123"), (4, b"456789ab")], "beyond"),
        ([(0, b"0123"), (4, b"45"), (6, b"XXXX")], "isn't the one"),
        ([(0, b"0123456789"), (10, b"")], "beyond"),
        ([(-1, b"0123")], "in order"),
    ],
    ids=["late", "again", "overlapping", "long", "long at last", "other", "after", "before"],
)
def test_parts_out_of_order_too_long_or_other_than_named_are_refused(
    domains: Domains, told: list[tuple[int, bytes]], why: str
) -> None:
    part, digest = domains.parts["east"], blake3(b"0123456789").hexdigest()

    def tell() -> None:
        for begin, piece in told:
            part.hold(domains.plan.hash, digest, 10, begin, piece)

    with pytest.raises(RoundRefused, match=why):
        tell()
    for begin, piece in parts_of(b"0123456789", 3):
        part.hold(domains.plan.hash, digest, 10, begin, piece)
    assert part.held_state(domains.plan.hash) == digest, "an honest one is taken afterwards"


def test_a_state_is_bounded_before_any_of_it_is_kept(domains: Domains) -> None:
    part = domains.parts["east"]
    for size in (0, -1, 2**21, 2**40):
        with pytest.raises(RoundRefused, match="at most"):
            part.hold(domains.plan.hash, "00" * 32, size, 0, b"0")
    assert part.held_state(domains.plan.hash) == ""
