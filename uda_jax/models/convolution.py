"""Convolution and pooling behind one interface, in the form that suits the platform."""

import jax
from jax import lax

from uda_jax.models import convolution_cpu

_LAYOUT = ("NHWC", "HWIO", "NHWC")


def conv(
    x: jax.Array,
    kernel: jax.Array,
    *,
    stride: int = 1,
    padding: int = 0,
    dilation: int = 1,
    groups: int = 1,
) -> jax.Array:
    """Cross-correlation as Conv2d: y[o] = sum_t kernel[t] x[o*stride + t*dilation - p].

    Plain XLA on GPU and TPU.  On a CPU dense and depthwise convolutions and their
    gradients take forms that are faster there (`convolution_cpu`), equal up to
    rounding.

    Args:
      x: [B, H, W, C_in] floating point.
      kernel: [K, K, C_in / groups, C_out], x's dtype.
      stride: step of the output in both axes.
      padding: p, zeros added on each of the four sides.
      dilation: distance of the taps.
      groups: output channel j sees the input channels of group j // (C_out / groups).

    Returns:
      [B, (H + 2p - dilation*(K-1) - 1)//stride + 1, likewise W, C_out], x's dtype.
    """
    if jax.default_backend() == "cpu":
        if groups == 1:
            return convolution_cpu.conv(x, kernel, stride, padding, dilation)
        if groups == x.shape[-1] == kernel.shape[-1] and stride == 1:
            return convolution_cpu.depthwise_conv(x, kernel, padding, dilation)
    return lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        [(padding, padding)] * 2,
        rhs_dilation=(dilation, dilation),
        feature_group_count=groups,
        dimension_numbers=_LAYOUT,
    )


def dilated_sum(
    x: jax.Array, kernels: tuple[jax.Array, ...], dilations: tuple[int, ...]
) -> jax.Array:
    """Sum over branches of 3x3 convolutions of one input, padding = dilation.

    Args:
      x: [B, H, W, C_in] floating point.
      kernels: one [3, 3, C_in, C_out] for each branch, x's dtype.
      dilations: one for each branch.

    Returns:
      [B, H, W, C_out], x's dtype.
    """
    if jax.default_backend() == "cpu":
        return convolution_cpu.dilated_sum(x, kernels, dilations)
    return sum(
        conv(x, kernel, padding=dilation, dilation=dilation)
        for kernel, dilation in zip(kernels, dilations, strict=True)
    )


def max_pool_3x3_stride2(x: jax.Array, *, ceil_mode: bool = False) -> jax.Array:
    """The largest of each 3x3 window at stride 2 with one ring of padding (ResNet's).

    The gradient goes to the first largest value of a window in row-major order, as in
    PyTorch, on every platform.

    Args:
      x: [B, H, W, C] floating point.
      ceil_mode: an even size gets one more window, which sees the last row alone.

    Returns:
      [B, (H-1)//2+1, (W-1)//2+1, C], with ceil_mode [B, H//2+1, W//2+1, C]; x's dtype.
    """
    after = 2 if ceil_mode else 1
    if jax.default_backend() == "cpu":
        return convolution_cpu.max_pool_3x3_stride2(x, after)
    return lax.reduce_window(
        x,
        -float("inf"),
        lax.max,
        (1, 3, 3, 1),
        (1, 2, 2, 1),
        ((0, 0), (1, after), (1, after), (0, 0)),
    )


def fusion_barrier(x: jax.Array) -> jax.Array:
    """x itself; on a CPU XLA does not fuse through it, forward and backward.

    XLA's CPU compiler fuses a sum into all that reads it, so that block n of a residual
    network adds up the n blocks before it anew: without it DeepLabV2-R101's step takes
    a fifth longer.
    """
    if jax.default_backend() == "cpu":
        return convolution_cpu.fusion_barrier(x)
    return x
