"""What one operation costs a user, in multiply-adds, from the shapes alone."""

from torch import Tensor

_PRODUCTS = frozenset(["mm", "mv", "dot", "bmm", "addmm", "addmv", "baddbmm"])
_FACTORISATIONS = frozenset(
    [
        "_linalg_solve_ex",
        "linalg_cholesky_ex",
        "linalg_inv_ex",
        "cholesky_solve",
        "linalg_solve_triangular",
    ]
)


def spreads(op: str) -> bool:
    """Whether PyTorch, mapping the operation over users, may copy what they share for each."""
    name = _name(op)
    return name in _FACTORISATIONS or name in ("bmm", "baddbmm")


def work(op: str, inputs: list[Tensor], results: list[Tensor]) -> float:
    """Multiply-adds, or elements touched where nothing is multiplied; roughly."""
    name = _name(op)
    touched = float(sum(value.numel() for value in (*inputs, *results)))
    sides = [max(value.shape[-1:], default=1) for value in inputs]
    if name in _PRODUCTS and inputs:
        left = inputs[-2] if len(inputs) > 1 else inputs[-1]
        return touched + float(results[0].numel()) * max(left.shape[-1:], default=1)
    return touched * max(sides, default=1) if name in _FACTORISATIONS else touched


def _name(op: str) -> str:
    return op.split(".")[1] if "." in op else op
