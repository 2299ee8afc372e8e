"""What no graph can have, and what to write in its place."""

from typing import Any

import torch


class TraceError(ValueError):
    """The function can't become a graph: says which line, which operation, what to write."""


ADVICE = {
    "aten.nonzero": "its result's size depends on the data; write torch.where(condition, a, b)",
    "aten.masked_select": "its result's size depends on the data; multiply by the mask instead",
    "aten._unique": "its result's size depends on the data; count with scatter_add into zeros",
    "aten.unique": "its result's size depends on the data; count with scatter_add into zeros",
    "aten.bincount": "its result's size depends on the data; use zeros(N).scatter_add(0, items, 1)",
    "aten.index_put": "write zeros(...).scatter_add(0, index, values) or torch.where",
    "aten.sort": "rank by comparing: (scores > score).sum(); a sequence needn't be packed: "
    "multiply by the mask",
    "aten.argsort": "rank by comparing: (scores > score).sum()",
    "aten.topk": "rank by comparing: (scores > score).sum()",
    "aten.argmax": "compare with amax: (scores == scores.amax())",
    "aten.max.dim": "write x.amax(dim) for the values; compare with it for the positions",
    "aten.min.dim": "write x.amin(dim) for the values; compare with it for the positions",
    "aten._embedding_bag": "write F.embedding(items, table), times the mask, .sum(0); or give bags "
    "as rows [B, L] without offsets, with mode 'sum' or 'mean'",
    "aten.convolution_backward": "differentiate convolutions by a Gradient step, not inside",
    "aten.kthvalue": "rank by comparing: (scores > score).sum()",
    "aten.mode": "count with scatter_add into zeros",
    "aten.take": "write x.reshape(-1)[index]",
    "aten.scatter_reduce": "write scatter_add; of a maximum, "
    "torch.where(index == torch.arange(N)[:, None], x, low).amax(-1)",
    "aten.index_reduce": "write index_add; of a maximum, "
    "torch.where(index == torch.arange(N)[:, None], x, low).amax(-1)",
    "aten.index_copy": "write torch.where(condition, new, old)",
    "aten.index_fill": "write torch.where(condition, new, old)",
    "aten.masked_scatter": "write torch.where(condition, new, old)",
    "aten.put": "write torch.where(condition, new, old)",
    "aten.isin": "write (x[:, None] == values).any(-1)",
    "aten.histc": "count the edges below: (values[:, None] > edges).sum(-1)",
    "aten.segment_reduce": "write zeros(N).index_add(0, segment, x)",
    "aten.bitwise_and": "of truth values write &; of whole numbers x // 2**k % 2",
    "aten.fmod": "write x - y * (x / y).trunc()",
    "aten.copysign": "write x.abs() * torch.where(y < 0, -1, 1)",
    "aten.signbit": "write x < 0",
    "aten.sinc": "write torch.where(x == 0, 1, (pi * x).sin() / (pi * x))",
    "aten.diagonal_scatter": "write torch.where(torch.eye(n, dtype=torch.bool), x, y)",
    "aten.exp2": "write 2.0**x",
    "aten.cov": "write y = x - x.mean(1, keepdim=True), then y @ y.T / (n - 1)",
    "aten.equal": "write (x == y).all()",
    "aten._is_all_true": "it looks at values; of torch.distributions: pass validate_args=False",
    "aten._pack_padded_sequence": "a sequence needn't be packed: multiply by the mask",
    "aten.replication_pad": "write torch.cat([x[:1].expand(k, -1), x])",
    "aten.avg_pool": "write x.unfold(-1, size, size).mean(-1)",
    "aten.adaptive_max_pool": "write x.unfold(-1, size, size).amax(-1)",
    "aten.adaptive_avg_pool": "write x.unfold(-1, size, size).mean(-1)",
    "aten.im2col": "write x.unfold(axis, size, step)",
    "aten.upsample_nearest": "write x.repeat_interleave(times, -1)",
    "aten._linalg_det": "of a positive matrix: cholesky(x).diagonal().prod() ** 2",
    "aten.linalg_qr": "its steps depend on the data; use linalg.solve, inv or cholesky",
    "aten.linalg_pinv": "solve the normal equations: torch.linalg.solve(x.T @ x, x.T)",
    "aten.lgamma": "compute it in public and pass it as state",
    "aten._pdist_forward": "write (x[:, None] - x).square().sum(-1), and .clamp(1e-12).sqrt()",
    "aten._has_same_storage_numel": "write the derivative by torch.func.grad",
    "aten.is_same_size": "write the derivative by torch.func.grad",
    "aten._efficientzerotensor": "write the derivative by torch.func.grad",
    "aten.promote_types": "write the powers out: torch.stack([x**k for k in range(n)], -1)",
    "aten._to_sparse": "graphs have dense tensors: leave it dense",
    "aten._sparse": "graphs have dense tensors: write table.to_dense()",
    "aten.max_pool": "write x.unfold(-1, size, size).amax(-1)",
    "aten.cumprod": "write x.log().cumsum(0).exp() of positive numbers",
    "aten.linalg_lstsq": "solve the normal equations: torch.linalg.solve(x.T @ x, x.T @ y)",
    "aten._linalg_svd": "its steps depend on the data; use linalg.solve, inv or cholesky",
    "aten._linalg_eigh": "its steps depend on the data; use linalg.solve, inv or cholesky",
    "aten.upsample_linear1d": "multiply by the matrix of weights, as state",
    "aten.reflection_pad1d": "write torch.cat([x[1:k].flip(0), x])",
    "aten.heaviside": "write (x > 0).float()",
    "aten.empty": "it would read memory it didn't write; use zeros",
    "aten.as_strided": "use reshape, permute or slicing",
    "aten.native_batch_norm": "it mixes users; use LayerNorm",
    "aten._native_batch_norm_legit": "it mixes users; use LayerNorm",
    "aten.cummax": "compare: (x[:, None] >= x).all() and the like, or x.amax() of each slice",
    "aten.median": "ranks by comparing: (x[:, None] > x).sum(1)",
    "aten.bucketize": "count the edges below: (values[:, None] > edges).sum(-1)",
    "aten.searchsorted": "count the edges below: (values[:, None] > edges).sum(-1)",
    "aten.__rshift__": "write x // 2**k",
    "aten.__lshift__": "write x * 2**k",
    "aten.bitwise_xor": "mix by sums and products: (a * 31 + b) % n",
    "aten.logcumsumexp": "write torch.logsumexp of masked scores: a triangle of -inf added",
    "aten._linalg_slogdet": "of a positive matrix: 2 * cholesky(x).diagonal().log().sum()",
    "aten.linalg_matrix_exp": "train the plain weight: parametrize.remove_parametrizations",
    "aten._fft_r2c": "multiply by the matrix of cosines and sines, as constants or state",
    "aten.view_as_complex": "graphs have real numbers: keep real and imaginary parts apart",
    "aten._ctc_loss": "write the loss with logsumexp over fixed positions",
    "aten._cdist_forward": "write (x[:, None] - y).square().sum(-1), and .clamp(1e-12).sqrt()",
    "aten._euclidean_dist": "write (x[:, None] - y).square().sum(-1), and .clamp(1e-12).sqrt()",
    "aten.embedding_renorm": "divide the rows by their norms: x / x.norm(dim=-1, keepdim=True)",
    "aten.copy_": "make a new tensor instead of writing into an input",
}

_DATA_DEPENDENT = (
    "the value of a tensor decides what happens next, and only private data could say which. "
    "Write torch.where(condition, a, b), or keep the value as a tensor"
)

NEEDS_A_VALUE = {
    "__bool__": f"an `if`, `while`, `and` or `not` on a tensor: {_DATA_DEPENDENT}",
    "item": f".item() takes a number out of a tensor: {_DATA_DEPENDENT}",
    "tolist": f".tolist() takes numbers out of a tensor: {_DATA_DEPENDENT}",
    "numpy": f".numpy() leaves PyTorch: {_DATA_DEPENDENT}",
    "__array__": f"numpy takes numbers out of a tensor: {_DATA_DEPENDENT}",
    "__dlpack__": f"another library takes numbers out of a tensor: {_DATA_DEPENDENT}",
    "data_ptr": f"a tensor's memory is read past PyTorch: {_DATA_DEPENDENT}",
    "__float__": f"float() takes a number out of a tensor: {_DATA_DEPENDENT}",
    "__int__": f"int() takes a number out of a tensor: {_DATA_DEPENDENT}",
    "__index__": f"a tensor is used as a Python number: {_DATA_DEPENDENT}",
    "__len__": f"the length depends on the data: {_DATA_DEPENDENT}",
    "one_hot": "one_hot looks at values to count the classes; write one_hot(index, classes)",
}

UNSUPPORTED = {
    "conv_transpose1d": "write its inverse, a product with a matrix of weights",
    "conv_transpose2d": "write its inverse, a product with a matrix of weights",
    "conv_transpose3d": "write its inverse, a product with a matrix of weights",
    "batch_norm": "BatchNorm mixes users, and its running statistics are hidden state; use "
    "LayerNorm, or fold a frozen BatchNorm into the layer before it",
    "gru": "a fused GRU doesn't become a graph; loop over the interactions with nn.GRUCell",
    "lstm": "a fused LSTM doesn't become a graph; loop over the interactions with nn.LSTMCell",
    "rnn_tanh": "a fused RNN doesn't become a graph; loop over the interactions with nn.RNNCell",
    "instance_norm": "InstanceNorm keeps running statistics; use LayerNorm over that axis",
    "multi_margin_loss": "write (scores - right[:, None] + 1).clamp(min=0).mean(1) - 1 / classes",
    "gaussian_nll_loss": "it looks at values; write 0.5 * (var.log() + (x - mean) ** 2 / var)",
    "rnn_relu": "a fused RNN doesn't become a graph; loop over the interactions with nn.RNNCell",
}

_HINTS = (
    (
        "setup_context",
        "Custom autograd functions and reentrant checkpoints don't become graphs: write plain "
        "operations with .detach(), or checkpoint(..., use_reentrant=False)",
    ),
    ("does not require grad", "Differentiate with torch.func.grad(function)(weights)"),
    ("register a hook", "A graph has no hooks: write what it does, with .detach() where needed"),
    ("not allocated yet", "torch.tensor takes numbers out of tensors: write torch.stack or cat"),
    ("dynamo-optimized", "Pass the module as it was before torch.compile"),
)

RANDOM = (
    "it draws random numbers, which a graph doesn't have. Dropout: call model.eval() before "
    "tracing; other randomness: draw it in public and pass it as state"
)


def refusal(func: Any, name: str) -> str:
    """What is wrong with an operator, and what to write instead."""
    if name == "aten._local_scalar_dense.default":
        return f"{name}: {_DATA_DEPENDENT}"
    if torch.Tag.nondeterministic_seeded in getattr(func, "tags", ()):
        return f"{name}: {RANDOM}"
    known = max((key for key in ADVICE if name.startswith(key)), key=len, default="")
    advice = ADVICE.get(known, "write it with the operations listed in policies/operations.py")
    return f"{name} isn't on the allow-list: {advice}"


def hint(message: str) -> str:
    """What to write instead of what PyTorch refused by itself in these words."""
    return next((f" {advice}." for words, advice in _HINTS if words in message), "")
