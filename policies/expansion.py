"""How PyTorch's operators become those that a graph may have, while a function is traced."""

import torch

_ATEN = torch.ops.aten

# Operators that PyTorch expands into allowed ones while it traces.
DECOMPOSED = (
    _ATEN.binary_cross_entropy_with_logits,
    _ATEN.binary_cross_entropy,
    _ATEN.mse_loss,
    _ATEN.smooth_l1_loss,
    _ATEN.huber_loss,
    _ATEN.soft_margin_loss,
    _ATEN._safe_softmax,
    _ATEN._weight_norm_interface,
    _ATEN._prelu_kernel,
    _ATEN._fused_rms_norm,
    _ATEN.addcdiv,
    _ATEN.addcmul,
    _ATEN.celu,
    _ATEN.count_nonzero,
    _ATEN.glu,
    _ATEN.hardsigmoid,
    _ATEN.hardswish,
    _ATEN.lerp,
    _ATEN.logaddexp,
    _ATEN.logit,
    _ATEN.mish,
    _ATEN.norm,
    _ATEN.trace,
    _ATEN._adaptive_avg_pool2d,
    _ATEN.aminmax,
    _ATEN.frac,
    _ATEN.hardshrink,
    _ATEN.hypot,
    _ATEN.linalg_cross,
    _ATEN.nansum,
    _ATEN.renorm,
    _ATEN.rot90,
    _ATEN.sgn,
    _ATEN.softshrink,
    _ATEN.special_entr,
    _ATEN.std_mean,
    _ATEN.threshold,
    _ATEN.var_mean,
    _ATEN.vdot,
    # Gradients inside a contribution: local training steps.
    _ATEN._log_softmax_backward_data,
    _ATEN._softmax_backward_data,
    _ATEN.binary_cross_entropy_backward,
    _ATEN.elu_backward,
    _ATEN.gelu_backward,
    _ATEN.hardtanh_backward,
    _ATEN.huber_loss_backward,
    _ATEN.leaky_relu_backward,
    _ATEN.log_sigmoid_backward,
    _ATEN.logit_backward,
    _ATEN.mse_loss_backward,
    _ATEN.native_layer_norm_backward,
    _ATEN.nll_loss_backward,
    _ATEN.select_backward,
    _ATEN.sigmoid_backward,
    _ATEN.silu_backward,
    _ATEN.slice_backward,
    _ATEN.smooth_l1_loss_backward,
    _ATEN.softplus_backward,
    _ATEN.tanh_backward,
    _ATEN.threshold_backward,
)

RENAMED = {
    "aten.unsafe_split.Tensor": "aten.split.Tensor",
    "aten.diagonal_copy.default": "aten.diagonal.default",
    "aten.view.default": "aten.reshape.default",
    "aten._unsafe_view.default": "aten.reshape.default",
    "aten._reshape_alias.default": "aten.reshape.default",
    # PyTorch's own layers and gradients fill it at once; no graph may read what wasn't written.
    "aten.empty_like.default": "aten.zeros_like.default",
    "aten.new_empty.default": "aten.new_zeros.default",
}

# These give their first argument back: names, not operations.
TRANSPARENT = {
    "aten.lift_fresh.default",
    "aten.lift_fresh_copy.default",
    "aten.alias.default",
}

# They only raise errors, which depends on private values; the results stay non-finite instead.
DROPPED = {"aten._linalg_check_errors.default"}
