"""Every allowed operation is pure, and mapped over users it never mixes them."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from policies.arguments import Call, check_call
from policies.graph import Node
from policies.operations import ALLOWED, OperationRefused, operation
from policies.ranges import INT64
from policies.refusals import Limits, PlanRefused

USERS = 5

# `copy` has no derivative, so admission refuses it in a gradient. That of `_linalg_solve_ex` fails
# at a singular matrix, for which the engine leaves a user out (tests/domains/test_engine.py).
UNDIFFERENTIATED = ("aten.copy.default", "aten._linalg_solve_ex.default")

# Arguments for each operation. Letters stand for one user's tensors: x y floats [2, 3]; p positive,
# h within (-1, 1), g above 1 [2, 3]; v floats [3]; s float []; q floats [3, 3]; k positive definite
# [3, 3]; l lower triangular [3, 3]; a b c batches of matrices [2, 3, 3]; i indices 0..1 [2, 3];
# j indices 0..1 [2]; w whole numbers 1..9 [2, 3]; t booleans [2, 3].
EXAMPLES = """
add.Tensor x y | add.Scalar x 2 | sub.Tensor x y | sub.Scalar x 2 | rsub.Scalar x 2
mul.Tensor x y | mul.Scalar x 2 | div.Tensor x p | div.Scalar x 2.0 | neg.default x
abs.default x | sign.default x | reciprocal.default p | sqrt.default p | rsqrt.default p
exp.default x | expm1.default x | log.default p | log2.default p | log10.default p
log1p.default p | pow.Tensor_Scalar p 1.5 | pow.Tensor_Tensor p y | pow.Scalar 2.0 x
sin.default x | cos.default x | tanh.default x | sigmoid.default x | erf.default x
softplus.default x | log_sigmoid_forward.default x | relu.default x | leaky_relu.default x
elu.default x | gelu.default x | silu.default x | hardtanh.default x | maximum.default x y
minimum.default x y | clamp.default x -1 1 | clamp.Tensor x y | clamp_min.default x 0
clamp_max.default x 0 | floor.default x | ceil.default x | round.default x | trunc.default x
clamp_min.Tensor x y | clamp_max.Tensor x y | tan.default x | asin.default h | acos.default h
atan.default x | sinh.default x | cosh.default x | asinh.default x | acosh.default g
atanh.default h | atan2.default x y | erfc.default x
div.Tensor_mode w w rounding_mode=floor | div.Scalar_mode w 2 rounding_mode=trunc
floor_divide.default w w | remainder.Scalar w 2 | remainder.Tensor w w
eq.Tensor w i | eq.Scalar w 1 | ne.Tensor w i | ne.Scalar w 1 | lt.Tensor x y | lt.Scalar x 0
le.Tensor x y | le.Scalar x 0 | gt.Tensor x y | gt.Scalar x 0 | ge.Tensor x y | ge.Scalar x 0
logical_and.default t t | logical_or.default t t | logical_not.default t | logical_xor.default t t
bitwise_and.Tensor t t | bitwise_or.Tensor w i | bitwise_not.default t | isnan.default x
where.self t x y | where.ScalarOther t x 0 | where.ScalarSelf t 0 x | where.Scalar t 0.0 1.0
masked_fill.Scalar x t 0 | masked_fill.Tensor x t s | fill.Scalar x 2 | fill.Tensor x s
sum.default x | sum.dim_IntList x [0] | mean.default x | mean.dim x [1] | amax.default x [0]
amin.default x [-1] | max.default x | min.default x | prod.default x | cumsum.default x 1
logsumexp.default x [0] | linalg_vector_norm.default x | var.correction x [0] | std.correction x [1]
any.default t | any.dim t 0 | all.default t | all.dim t 1 | _softmax.default x 0 False
_log_softmax.default x -1 False | native_layer_norm.default x [3] v v 1e-05
mm.default x q | mv.default x v | dot.default v v | bmm.default a b | addmm.default v x q
addmv.default v q v | baddbmm.default a b c | tril.default q | triu.default q
_linalg_solve_ex.default k v | linalg_cholesky_ex.default k | linalg_inv_ex.default k
cholesky_solve.default q l | linalg_solve_triangular.default l q upper=False
reshape.default x [3,2] | permute.default x [1,0] | transpose.int x 0 1 | t.default x
unsqueeze.default x -1 | squeeze.default x | squeeze.dim x 0 | squeeze.dims x [0,1]
expand.default v [2,3] | slice.Tensor x 1 1 3 | select.int x 0 -1 | cat.default [x,y] 1
stack.default [x,y] | flip.default x [1] | split.Tensor x 1 | unbind.int x 1
repeat.default x [2,1] | diagonal.default q | diag_embed.default v
constant_pad_nd.default x [1,1] 0.5 | select_scatter.default x v 0 1
slice_scatter.default x y 1 | copy.default x y | alias.default x
clone.default x | detach.default x | _to_copy.default x dtype=int64
index.Tensor x [i] | gather.default x 0 i | index_select.default x 0 j | embedding.default x i
scatter_add.default x 0 i y | scatter.value x 0 i 1 | index_add.default x 0 j y
index_put.default x [j] y True
zeros.default [2] | ones.default [2] | full.default [2] 3 | arange.default 3 | arange.start 1 3
arange.start_step 1 9 2 | eye.default 3 | eye.m 3 2 | scalar_tensor.default 3 | zeros_like.default x
ones_like.default x | full_like.default x 2 | new_zeros.default x [2] | new_ones.default x [2]
new_full.default x [2] 7
"""


def examples() -> dict[str, list[str]]:
    lines = EXAMPLES.replace("\n", " | ").split("|")
    words = [line.split() for line in lines if line.strip()]
    return {f"aten.{name}": arguments for name, *arguments in words}


def people(seed: int) -> dict[str, Tensor]:
    random = torch.Generator().manual_seed(seed)

    def floats(*shape: int) -> Tensor:
        return torch.randn(USERS, *shape, generator=random)

    def whole(low: int, high: int, *shape: int) -> Tensor:
        return torch.randint(low, high, (USERS, *shape), generator=random)

    q = floats(3, 3)
    return {
        "h": floats(2, 3).tanh(), "g": floats(2, 3).abs() + 1.1,
        "x": floats(2, 3), "y": floats(2, 3), "p": floats(2, 3).abs() + 0.1, "v": floats(3),
        "s": floats(), "q": q, "k": q @ q.mT + torch.eye(3), "l": q.tril() + 3 * torch.eye(3),
        "a": floats(2, 3, 3), "b": floats(2, 3, 3), "c": floats(2, 3, 3),
        "i": whole(0, 2, 2, 3), "j": whole(0, 2, 2), "w": whole(1, 10, 2, 3),
        "t": whole(0, 2, 2, 3).bool(),
    }  # fmt: skip


def argument(text: str, user: dict[str, Tensor]) -> Any:
    if text.startswith("["):
        return [argument(part, user) for part in text[1:-1].split(",")]
    if text in user:
        return user[text]
    if text in ("True", "False"):
        return text == "True"
    return float(text) if "." in text or "e" in text else int(text)


def called(name: str, user: dict[str, Tensor]) -> list[Tensor]:
    args, kwargs = [], {}
    for text in examples()[name]:
        key, _, value = text.partition("=")
        if value:
            special: dict[str, Any] = {"int64": torch.int64, "False": False}
            kwargs[key] = special.get(value, value)
        else:
            args.append(argument(text, user))
    results = tree_leaves(operation(name)(*args, **kwargs))
    return [tensor for tensor in results if isinstance(tensor, Tensor)]


def mapped(name: str, batch: dict[str, Tensor]) -> list[Tensor]:
    return torch.func.vmap(lambda user: called(name, user))(batch)


def test_every_allowed_operation_has_an_example_and_a_reason() -> None:
    assert set(examples()) | {"getitem"} == set(ALLOWED)
    assert all(ALLOWED.values())


@pytest.mark.parametrize("name", sorted(examples()))
def test_mapped_over_users_it_gives_each_what_she_gets_alone(name: str) -> None:
    batch = people(0)
    kept = {key: tensor.clone() for key, tensor in batch.items()}
    together = mapped(name, batch)
    for index in range(USERS):
        hers = called(name, {key: tensor[index] for key, tensor in batch.items()})
        for found, expected in zip(together, hers, strict=True):
            assert torch.allclose(found[index], expected, rtol=1e-5, atol=1e-6)
    assert all(torch.equal(batch[key], kept[key]) for key in batch), "it wrote into its inputs"


@pytest.mark.parametrize("name", sorted(examples()))
def test_another_users_data_changes_not_one_bit_of_hers(name: str) -> None:
    batch, other = people(0), people(1)
    changed = {key: tensor.clone() for key, tensor in batch.items()}
    for key, tensor in changed.items():
        tensor[2] = other[key][2]
        if tensor.is_floating_point():
            tensor[3] = torch.nan
    kept = [0, 1, 4]
    for before, after in zip(mapped(name, batch), mapped(name, changed), strict=True):
        assert torch.equal(before[kept], after[kept])


def weighed(name: str, user: dict[str, Tensor]) -> Tensor:
    """A number that hangs on every float that the operation gives."""
    results = [found for found in called(name, user) if found.is_floating_point()]
    sums = [(found * torch.arange(1.0, found.numel() + 1).reshape(found.shape)).sum()
            for found in results]  # fmt: skip
    return sum(sums, torch.zeros(()))


def each_alone(
    name: str, floats: dict[str, Tensor], others: dict[str, Tensor]
) -> dict[str, Tensor]:
    def gradient(mine: dict[str, Tensor], rest: dict[str, Tensor]) -> dict[str, Tensor]:
        found: dict[str, Tensor] = torch.func.grad(lambda m: weighed(name, {**m, **rest}))(mine)
        return found

    return torch.func.vmap(gradient)(floats, others)


@pytest.mark.parametrize("name", sorted(examples()))
def test_another_users_data_changes_not_one_bit_of_her_gradient(name: str) -> None:
    """As the engine differentiates; PyTorch's derivatives look at values too."""
    if name in UNDIFFERENTIATED:
        return
    batch, kept = people(0), [0, 1, 4]
    found = []
    for value in (None, 0.0, torch.nan, torch.inf):
        changed = {key: tensor.clone() for key, tensor in batch.items()}
        for key, tensor in changed.items():
            tensor[2] = batch[key][2] if value is None else people(1)[key][2]
            if tensor.is_floating_point() and value is not None:
                tensor[3] = value
        floats = {k: t for k, t in changed.items() if t.is_floating_point()}
        others = {k: t for k, t in changed.items() if k not in floats}
        gradients = each_alone(name, floats, others)
        found.append({key: gradient[kept] for key, gradient in gradients.items()})
    for later in found[1:]:
        for key, gradient in found[0].items():
            assert torch.equal(gradient, later[key])


def test_the_gradient_of_a_product_is_taken_for_each_user_alone() -> None:
    """Through a whole batch it would hang on whether anybody's factor is zero."""
    batch = {"x": people(0)["x"]}
    with_zero = {"x": batch["x"].clone()}
    with_zero["x"][3] = 0.0
    before, after = (each_alone("aten.prod.default", b, {}) for b in (batch, with_zero))
    assert torch.equal(before["x"][:3], after["x"][:3])


@pytest.mark.parametrize("name", sorted(examples()))
def test_it_is_neither_random_nor_in_place(name: str) -> None:
    function: Any = operation(name)
    assert not function._schema.is_mutable
    assert torch.Tag.nondeterministic_seeded not in function.tags
    # Indexing has a size that depends on data for boolean indices only; admission refuses those.
    assert torch.Tag.dynamic_output_shape not in function.tags or name == "aten.index.Tensor"
    assert torch.Tag.data_dependent_output not in function.tags


@pytest.mark.parametrize("name", ["aten.rand.default", "os.system", "", "aten.add_.Tensor", "aten"])
def test_anything_else_is_refused_before_it_is_looked_up(name: str) -> None:
    with pytest.raises(OperationRefused, match="allow-list"):
        operation(name)


SYSTEMS = [
    (matrix, right)
    for matrix in [(1, 1, 1), (3, 1, 1), (3, 3), (3, 3, 3), (1, 3, 3)]
    for right in [
        (1, 3),
        (3, 1),
        (3, 3),
        (1, 1, 3),
        (3, 1, 3),
        (1, 3, 1),
        (3, 3, 1),
        (3, 3, 3),
        (3,),
    ]
]


@pytest.mark.parametrize("shared", ["matrix", "right", "none"])
def test_no_admitted_system_is_solved_with_another_users_right_side(shared: str) -> None:
    """With as many users as the axes are long, PyTorch's mapping would take one for the other."""
    users, random, solved = 3, torch.Generator().manual_seed(0), 0
    dims = (None if shared == "matrix" else 0, None if shared == "right" else 0)
    for matrix, right in SYSTEMS:
        a = torch.randn(users, *matrix, generator=random) + 4 * torch.eye(matrix[-1])
        b = torch.randn(users, *right, generator=random)
        if not admitted("aten._linalg_solve_ex.default", a[0], b[0]):
            continue
        given = [t if dim == 0 else t[0] for t, dim in zip((a, b), dims, strict=True)]
        together = torch.func.vmap(first_solution, in_dims=dims)(*given)
        for user in range(users):
            hers = [t if dim is None else t[user] for t, dim in zip(given, dims, strict=True)]
            expected = first_solution(*hers)
            assert together[user].shape == expected.shape
            assert torch.allclose(together[user], expected, rtol=1e-4, atol=1e-5)
        solved += 1
    assert solved >= 8


def first_solution(matrix: Tensor, right: Tensor) -> Tensor:
    found: Tensor = operation("aten._linalg_solve_ex.default")(matrix, right)[0]
    return found


def admitted(op: str, *tensors: Tensor) -> bool:
    """Whether the operation's own rule lets these shapes pass, and PyTorch for one user."""
    names = [f"n{index}" for index in range(len(tensors))]
    node = Node(name="n9", op=op, args=tuple({"ref": name} for name in names))
    try:
        check_call(Call(node, list(tensors), {}, lambda value: INT64), Limits())
        operation(op)(*tensors)
    except (PlanRefused, RuntimeError):
        return False
    return True
