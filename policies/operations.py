"""The operations a graph may use, each with the reason why it is safe.

An operation is listed when it is pure (no hidden state, no randomness, no writing into its
inputs), when its result's shape follows from its inputs' shapes alone, when it never reads
memory that it didn't write (so nothing uninitialised), when it never raises because of the
*values* it meets (an error that depends on private data would be a release), and when
`torch.func.vmap` maps it over users without mixing them. What isn't listed is refused.

Names are those of PyTorch's ATen operators, `aten.<operator>.<overload>`; `getitem` picks one
result of an operator that has several.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import torch

_REASONS: tuple[tuple[str, str], ...] = (
    (
        "each element of the result depends on the same element of the inputs only",
        """add.Tensor add.Scalar sub.Tensor sub.Scalar rsub.Scalar mul.Tensor mul.Scalar
        div.Tensor div.Scalar neg.default abs.default sign.default reciprocal.default
        sqrt.default rsqrt.default exp.default expm1.default log.default log2.default
        log10.default log1p.default pow.Tensor_Scalar pow.Tensor_Tensor pow.Scalar sin.default
        cos.default tanh.default sigmoid.default erf.default softplus.default
        log_sigmoid_forward.default relu.default leaky_relu.default elu.default gelu.default
        silu.default hardtanh.default maximum.default minimum.default clamp.default
        clamp.Tensor clamp_min.default clamp_max.default floor.default ceil.default
        round.default trunc.default clamp_min.Tensor clamp_max.Tensor tan.default asin.default
        acos.default atan.default sinh.default cosh.default asinh.default acosh.default
        atanh.default atan2.default erfc.default""",
    ),
    (
        "elementwise; an integer divisor must be provably at least one",
        "div.Tensor_mode div.Scalar_mode floor_divide.default remainder.Scalar remainder.Tensor",
    ),
    (
        "elementwise choice, and its result keeps its inputs' shape: no branch is taken",
        """eq.Tensor eq.Scalar ne.Tensor ne.Scalar lt.Tensor lt.Scalar le.Tensor le.Scalar
        gt.Tensor gt.Scalar ge.Tensor ge.Scalar logical_and.default logical_or.default
        logical_not.default logical_xor.default bitwise_and.Tensor bitwise_or.Tensor
        bitwise_not.default isnan.default where.self where.ScalarOther where.ScalarSelf where.Scalar
        masked_fill.Scalar masked_fill.Tensor fill.Scalar
        fill.Tensor""",
    ),
    (
        "reduces over dimensions that the graph fixes; users aren't a dimension of the graph",
        """sum.default sum.dim_IntList mean.default mean.dim amax.default amin.default
        max.default min.default prod.default cumsum.default logsumexp.default
        linalg_vector_norm.default var.correction std.correction any.default any.dim
        all.default all.dim _softmax.default _log_softmax.default native_layer_norm.default""",
    ),
    (
        "linear algebra with fixed shapes, mapped over users one matrix at a time",
        """mm.default mv.default dot.default bmm.default addmm.default addmv.default
        baddbmm.default tril.default triu.default""",
    ),
    (
        "factorisation that reports a singular matrix as non-finite numbers, not as an error",
        """_linalg_solve_ex.default linalg_cholesky_ex.default linalg_inv_ex.default
        cholesky_solve.default linalg_solve_triangular.default""",
    ),
    (
        "rearranges elements, with sizes that the graph fixes",
        """reshape.default permute.default transpose.int t.default unsqueeze.default
        squeeze.default squeeze.dim squeeze.dims expand.default slice.Tensor select.int
        cat.default stack.default flip.default split.Tensor unbind.int repeat.default
        diagonal.default diag_embed.default constant_pad_nd.default select_scatter.default
        slice_scatter.default copy.default alias.default clone.default detach.default
        _to_copy.default""",
    ),
    (
        "reads or adds at indices that admission proves to be in range",
        """index.Tensor gather.default index_select.default embedding.default
        scatter_add.default scatter.value index_add.default index_put.default""",
    ),
    (
        "creates a tensor whose size and content the graph fixes, within the memory bound",
        """zeros.default ones.default full.default arange.default arange.start
        arange.start_step eye.default eye.m scalar_tensor.default zeros_like.default
        ones_like.default full_like.default new_zeros.default new_ones.default
        new_full.default""",
    ),
)

ALLOWED: dict[str, str] = {
    f"aten.{name}": reason for reason, names in _REASONS for name in names.split()
} | {"getitem": "picks one result of an operator that has several"}


class OperationRefused(ValueError):
    """A graph names an operation that isn't on the allow-list."""


@cache
def operation(name: str) -> Callable[..., Any]:
    """The PyTorch operator behind an allowed name.

    Raises:
        OperationRefused: the name isn't on the allow-list; nothing was looked up.
    """
    if name not in ALLOWED:
        raise OperationRefused(
            f"The operation {name!r} isn't on the allow-list. "
            "Write the step with the operations listed in policies/operations.py."
        )
    if name == "getitem":
        return _getitem
    _, packet, overload = name.split(".")
    found: Callable[..., Any] = getattr(getattr(torch.ops.aten, packet), overload)
    return found


def _getitem(values: tuple[Any, ...] | list[Any], position: int) -> Any:
    return values[position]
