"""What the author of a tensor reads when it can't be: what is wrong, expected, and what next."""

import math
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import coterie as ct
from network.client import NodeRefused
from network.smpc.tensors import Operation
from policies.graph import TensorSpec
from tests.domains.domains_of_tensors import NAMES, Domains
from tests.domains.handle_on_domains import handle_on

Tensor = ct.SMPCTensor


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> ct.Tensors:
    return handle_on(Domains.create(), tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def x(kept: ct.Tensors) -> Tensor:
    return kept.share("x")["counts"]


NOT_THERE: dict[str, Callable[[Tensor], Any]] = {
    "a number added": lambda x: x + 1,
    "added to a number": lambda x: 1 + x,
    "a number taken away": lambda x: x - 1.5,
    "taken from a number": lambda x: 1 - x,
    "added to numpy's": lambda x: np.ones(6) + x,
    "taken from numpy's": lambda x: np.float64(1) - x,
    "a power": lambda x: x**2,
    "a number's power": lambda x: 2**x,
    "a quotient of tensors": lambda x: x / x,
    "a number by it": lambda x: 1 / x,
    "whole quotient": lambda x: x // 2,
    "rest": lambda x: x % 2,
    "both": lambda x: divmod(x, 2),
    "absolute": lambda x: abs(x),
    "rounded": lambda x: round(x),  # type: ignore[call-overload]
    "bits": lambda x: x & x,
    "shifted": lambda x: x << 1,
}


def test_a_step_that_isn_t_kept_is_told_beside_those_that_are(kept: ct.Tensors) -> None:
    with pytest.raises(ct.TensorRefused, match="keeps no step 'z'; it keeps 'x', 'y'"):
        kept.share("z")
    with pytest.raises(ct.TensorRefused, match="Say which kept step"):
        kept.share(None)  # type: ignore[arg-type]


@pytest.mark.parametrize("what", NOT_THERE)
def test_other_operations_say_which_there_are(x: Tensor, what: str) -> None:
    with pytest.raises(TypeError, match="adding a public number too, is free on what reveal"):
        NOT_THERE[what](x)


NO_NUMBERS: dict[str, Callable[[Any], Any]] = {
    "np.sum": np.sum,
    "np.mean": np.mean,
    "np.concatenate": lambda x: np.concatenate([x, x]),
    "np.transpose": np.transpose,
    "np.dot": lambda x: np.dot(x, x),
    "np.array": lambda x: np.array([x, x]),
    "torch.tensor": torch.tensor,
    "torch.as_tensor": torch.as_tensor,
    "float": float,
}


@pytest.mark.parametrize("what", NO_NUMBERS)
def test_conversions_say_how_numbers_are_published(x: Tensor, what: str) -> None:
    with pytest.raises(TypeError, match=r"has no numbers here\. reveal\(\) publishes it"):
        NO_NUMBERS[what](x)


WRONG: dict[str, tuple[Callable[[Tensor], Any], str]] = {
    "an array of factors": (lambda x: x * np.ones(6), r"np\.diag\(factors\) @ x"),
    "a list of factors": (lambda x: x * ([1.0] * 10**4), "one finite number other than 0"),
    "no number": (lambda x: x * Decimal(2), r"not Decimal\('2'\)"),
    "by nothing": (lambda x: x / 0, "other than 0, not 0"),
    "a huge factor": (lambda x: 10**5000 * x, r"2\^-64 and 2\^64"),
    "a tiny factor": (lambda x: x * Fraction(1, 2**64), r"2\^-64 and 2\^64"),
    "by a tiny number": (lambda x: x / 1e-300, r"2\^-64 and 2\^64"),
    "a vector": (lambda x: np.ones(6) @ x, r"v\[None\]"),
    "ragged rows": (lambda x: [[1.0], [1.0, 2.0]] @ x, "rows of one length"),
    "complex numbers": (lambda x: np.ones((1, 6)) * 1j @ x, "real numbers, not complex"),
    "a matrix of nan": (lambda x: np.full((1, 6), math.nan) @ x, "finite numbers"),
    "a matrix of nothing": (lambda x: np.zeros((2, 6)) @ x, "not all of them 0"),
    "a matrix that is too large": (
        lambda x: np.broadcast_to(np.float32(1), (2**25, 6)) @ x, "applied in parts"
    ),
    "another length": (lambda x: np.ones((2, 5)) @ x, "must be as long as"),
    "other shapes": (lambda x: x + x.reshape(2, 3), "nothing is repeated to fit"),
    "several axes": (lambda x: x.sum((0,)), "one at a time"),  # type: ignore[arg-type]
    "an axis with a point": (lambda x: x.mean(0.0), "whole numbers"),  # type: ignore[arg-type]
    "no such axis": (lambda x: x.sum(1), "has no axis 1"),
    "too many axes": (lambda x: x.reshape(1, 1, 1, 1, 6), "at most 4 axes"),
    "an array as index": (lambda x: x[np.array([0, 1])], r"np\.eye\(n\)\[places\] @ x"),
    "an array of truths": (lambda x: x[np.array([True] * 6)], "is no index"),
    "a tensor as index": (lambda x: x[x], "is no index"),
    "a long list as index": (lambda x: x[[0] * 10**4], "is no index"),
    "two Ellipses": (lambda x: x[..., ...], "one Ellipsis"),
    "a slice with a point": (lambda x: x[0.5:2], "whole numbers"),  # type: ignore[misc]
    "a slice without a step": (lambda x: x[::0], "whole numbers"),
    "backwards": (lambda x: x[::-1], "backwards"),
    "nothing": (lambda x: x[3:3], "takes nothing"),
    "outside": (lambda x: x[10**30], "outside an axis of 6"),
    "a list with numbers": (
        lambda x: Tensor.concatenate([x, np.ones(6)]), "not ndarray"  # type: ignore[list-item]
    ),
    "no list": (lambda x: Tensor.concatenate(x), "a list of 1 to 64"),  # type: ignore[arg-type]
    "along nothing": (
        lambda x: Tensor.concatenate([x, x], axis=None), "takes an axis"  # type: ignore[arg-type]
    ),
    "without axes": (lambda x: Tensor.concatenate([x.sum()]), r"reshape\(1\)"),
    "half a bit": (lambda x: x.truncate(1.5), "whole number of bits"),  # type: ignore[arg-type]
    "no dealer": (lambda x: x * x, r"ct\.Plan\(dealer=...\)"),
    "no SPU": (lambda x: x > 1, r"ct\.Plan\(comparisons='spu'\)"),
    "a comparison with an array": (lambda x: x < np.ones(6), "finite numbers"),
    "no such step": (lambda x: x.noise_std("no"), "keeps no step 'no'"),
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG)
def test_a_refusal_says_what_is_wrong_and_what_is_expected(x: Tensor, what: str) -> None:
    wrong, why = WRONG[what]
    with pytest.raises(ct.TensorRefused, match=why) as refused:
        wrong(x)
    assert len(str(refused.value)) < 300


STATES: dict[str, Any] = {
    "none of that name": {"v": torch.ones(3)},
    "another shape": {"w": torch.ones(3, 1)},
    "double precision": {"w": torch.ones(3, dtype=torch.float64)},
    "numpy's": {"w": np.ones(3, np.float32)},
    "a list": {"w": [1.0, 1.0, 1.0]},
    "no dict": [torch.ones(3)],
}


@pytest.mark.parametrize("what", STATES)
def test_a_state_is_what_the_step_reads(what: str, tmp_path: Path) -> None:
    """Told before any node is asked for a key."""
    domains = Domains.create()
    read = TensorSpec(name="w", shape=(3,), dtype="float32")
    step = domains.plan.step("x").model_copy(update={"state": (read,)})
    domains.plan = domains.plan.model_copy(update={"steps": (step,)})
    for name in NAMES:
        domains.restart(name)
    kept = handle_on(domains, tmp_path)
    with pytest.raises(ct.TensorRefused, match=r"reads 'w', a tensor \(3,\)|dict of tensors"):
        kept.share("x", STATES[what])
    with pytest.raises(ct.TensorRefused, match="reads 'w'"):
        kept.share("x")
    found = kept.share("x", {"w": torch.ones(3, requires_grad=True), "more": torch.ones(1)})
    assert found["counts"].shape == (6,)


def test_tensors_of_different_plans_do_not_meet(x: Tensor, tmp_path: Path) -> None:
    other = handle_on(Domains.create("another"), tmp_path).share("x")["counts"]
    for meet in (
        lambda: x + other,
        lambda: other - x,
        lambda: Tensor.concatenate([x, other]),
        lambda: other > x,
    ):
        with pytest.raises(ct.TensorRefused, match="of different plans"):
            meet()
    with pytest.raises(ct.TensorRefused, match="of different plans"):
        x._home.drop(x, other)
    with pytest.raises(ct.TensorRefused, match="Expected shared tensors, not int"):
        x._home.drop(5)  # type: ignore[arg-type]
    # Nor past the handle: a node keeps what its own plan named.
    with pytest.raises(NodeRefused, match="keeps no such tensor"):
        other._home.apply(Operation(do="sum", of=(x.name,)), other)


def test_two_handles_on_one_plan_share_its_tensors(kept: ct.Tensors, x: Tensor) -> None:
    again = ct.Tensors(kept.nodes, kept._plan, kept.approved, kept.folder)
    y = again.share("y")["counts"]
    assert (x + y).shape == Tensor.concatenate([y, x])[:6].shape == (6,)
