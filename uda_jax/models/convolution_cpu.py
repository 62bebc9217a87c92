"""Forms of convolution and pooling that XLA runs fast on a CPU.

The sums are those of plain XLA in another order; the parity tests hold them to
`lax.conv_general_dilated`, `lax.reduce_window` and their gradients.  Each form is here
because it gained: the docstrings say milliseconds of one core, or of two where that is
said, before -> after (jax 0.10.2, float32, an EPYC).  Sub-pixel convolutions for the
input's gradient at stride 2 gained nothing over XLA's own and cost half a second of
compilation each.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental.xla_metadata import set_xla_metadata

from uda_jax.models.kernel_gradient_cpu import kernel_gradient, pad, product

_LAYOUT = ("NHWC", "HWIO", "NHWC")

# Of an image the copies of the taps cost more than a matrix product saves.
_MIN_CHANNELS = 16


def conv(
    x: jax.Array, kernel: jax.Array, stride: int, padding: int, dilation: int
) -> jax.Array:
    """`models.convolution.conv` of one group (reverse mode only).

    Windows that touch without overlap (kernel == stride, no padding: the attention's
    reduction in MiT) become a 1x1 convolution of rearranged pixels: input's gradient at
    8x8 of 32 channels 7.1 -> 0.4 ms.
    """
    size, _, _, channels_out = kernel.shape
    if size == stride > 1 and padding == 0 and dilation == 1:
        kernel = kernel.reshape(1, 1, -1, channels_out)
        return _conv(_touching_windows(x, size), kernel, 1, 0, 1)
    return _conv(x, kernel, stride, padding, dilation)


def _touching_windows(x, size):
    """[B, H, W, C] -> [B, H // size, W // size, size * size * C]."""
    batch, height, width, channels = x.shape
    rows, columns = height // size, width // size
    x = x[:, : rows * size, : columns * size]
    x = x.reshape(batch, rows, size, columns, size, channels).swapaxes(2, 3)
    return x.reshape(batch, rows, columns, size * size * channels)


@partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def _conv(x, kernel, stride, padding, dilation):
    """1x1 is a matrix product (1024 to 256 channels 7.9 -> 6.4 ms).

    With few output channels XLA's own form keeps one core busy: 64 to 64 channels, 3x3
    at 32x64, 3.4 -> 2.1 ms of two cores.
    """
    size, _, channels_in, channels_out = kernel.shape
    if size == 1 and padding == 0:
        x = x[:, ::stride, ::stride]
        y = product(x.reshape(-1, channels_in), kernel[0, 0])
        return y.reshape(*x.shape[:3], channels_out).astype(x.dtype)
    if channels_in >= _MIN_CHANNELS and channels_out <= 64 and stride == 1:
        height = x.shape[1] + 2 * padding - dilation * (size - 1)
        width = x.shape[2] + 2 * padding - dilation * (size - 1)
        places = [padding - dilation * tap for tap in range(size)]
        groups = [
            (
                jnp.concatenate(list(kernel[a]), axis=-1),
                [(places[a], b) for b in places],
            )
            for a in range(size)
        ]
        return _products_moved(x, groups, (height, width)).astype(x.dtype)
    return _plain_conv(x, kernel, stride, padding, dilation)


def _plain_conv(x, kernel, stride, padding, dilation):
    return lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        [(padding, padding)] * 2,
        rhs_dilation=(dilation, dilation),
        dimension_numbers=_LAYOUT,
    )


def _conv_forward(x, kernel, stride, padding, dilation):
    return _conv(x, kernel, stride, padding, dilation), (x, kernel)


def _conv_backward(stride, padding, dilation, residuals, dy):
    x, kernel = residuals
    geometry = stride, padding, dilation
    size, _, channels_in, _ = kernel.shape
    if size == 1 or channels_in >= _MIN_CHANNELS:
        dx = _input_gradient(x.shape, kernel, dy, *geometry)
    else:
        _, pull = jax.vjp(lambda x: _plain_conv(x, kernel, *geometry), x)
        (dx,) = pull(dy)
    return dx, kernel_gradient(x, dy, size, *geometry)


_conv.defvjp(_conv_forward, _conv_backward)


def _input_gradient(shape, kernel, dy, stride, padding, dilation):
    """Each row of taps: dy times the kernel's transpose, then shift and add.

    XLA turns the kernel round first, which for many channels takes longer than the
    convolution: 512 channels at 4x8 10.3 -> 3.9 ms, at 17x33 with dilation 4
    72 -> 60 ms, 256 to 512 channels at 8x16 with stride 2 5.2 -> 2.2 ms; 64 channels at
    32x64 3.4 -> 2.1 ms of two cores.
    """
    size, _, _, channels_out = kernel.shape
    places = [dilation * tap - padding for tap in range(size)]
    groups = [
        (kernel[a].reshape(-1, channels_out).T, [(places[a], b) for b in places])
        for a in range(size)
    ]
    return _products_moved(dy, groups, shape[1:3], stride).astype(dy.dtype)


def _products_moved(x, groups, size, stride=1):
    """Sum over taps of x times the tap's matrix, moved to the tap's place: float32.

    Args:
      x: [B, H, W, C].
      groups: one product each: (matrix [C, taps * D], (row, column) where the first
        pixel of x goes, for each tap).
      size: (height, width) of the result; what falls outside is lost.
      stride: distance of x's pixels in the result.

    Returns:
      [B, height, width, D].
    """
    batch, height, width, channels = x.shape
    y = 0.0
    for matrix, places in groups:
        moved = product(x.reshape(-1, channels), matrix)
        moved = moved.reshape(batch, height, width, len(places), -1)
        for tap, (top, left) in enumerate(places):
            bottom = size[0] - top - (height - 1) * stride - 1
            right = size[1] - left - (width - 1) * stride - 1
            rows, columns = (top, bottom, stride - 1), (left, right, stride - 1)
            still = (0, 0, 0)
            y += pad(moved[:, :, :, tap], (still, rows, columns, still))
    return fusion_barrier(y)


def dilated_sum(
    x: jax.Array, kernels: tuple[jax.Array, ...], dilations: tuple[int, ...]
) -> jax.Array:
    """`models.convolution.dilated_sum`: one product to (taps x classes) channels.

    Then shift and add; the centre taps share one kernel, and taps that see only padding
    are left out.  2048 channels to 19 classes at 17x33, dilations 6 to 24: value
    88 -> 21 ms, gradients 141 -> 50 ms.
    """
    height, width = x.shape[1:3]
    taps = {(0, 0): sum(kernel[1, 1] for kernel in kernels)}
    for kernel, dilation in zip(kernels, dilations, strict=True):
        for a, b in np.ndindex(3, 3):
            place = (1 - a) * dilation, (1 - b) * dilation
            if (a, b) != (1, 1) and abs(place[0]) < height and abs(place[1]) < width:
                taps[place] = taps.get(place, 0) + kernel[a, b]
    group = jnp.concatenate(list(taps.values()), axis=1), list(taps)
    return _products_moved(x, [group], (height, width)).astype(x.dtype)


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def depthwise_conv(
    x: jax.Array, kernel: jax.Array, padding: int, dilation: int
) -> jax.Array:
    """Each channel by itself, stride 1: shifted multiply-adds; kernel [K, K, 1, C].

    XLA's grouped convolution is slow on a CPU.  3x3 of 128 channels at 32x64: value
    16 -> 0.35 ms, input's gradient 16 -> 0.35, kernel's 35 -> 2.1; of 1024 channels
    with dilation 12: 156 -> 9, 156 -> 9 and 3810 -> 26 ms.
    """
    y = 0.0
    for (a, b), seen in _taps(x, kernel.shape[0], padding, dilation):
        y += seen * kernel[a, b, 0].astype(jnp.float32)
    # Otherwise every reader adds up the taps anew: 1.3 times DAFormer's step.
    return fusion_barrier(y.astype(x.dtype))


def _taps(x, size, padding, dilation):
    """((row, column) of the kernel, what it sees of the padded x), float32."""
    around, still = (padding, padding, 0), (0, 0, 0)
    x = pad(x.astype(jnp.float32), (still, around, around, still))
    # Without the barrier DAFormer's step takes 14 % longer: XLA pads for each tap.
    x = lax.optimization_barrier(x)
    reach = dilation * (size - 1)
    rows, columns = x.shape[1] - reach, x.shape[2] - reach
    for a in range(size):
        for b in range(size):
            top, left = a * dilation, b * dilation
            yield (a, b), x[:, top : top + rows, left : left + columns]


def _depthwise_forward(x, kernel, padding, dilation):
    return depthwise_conv(x, kernel, padding, dilation), (x, kernel)


def _depthwise_backward(padding, dilation, residuals, dy):
    x, kernel = residuals
    size = kernel.shape[0]
    reach = dilation * (size - 1)
    dx = depthwise_conv(dy, kernel[::-1, ::-1], reach - padding, dilation)
    wide = dy.astype(jnp.float32)
    sums = [
        jnp.sum(seen * wide, (0, 1, 2)) for _, seen in _taps(x, size, padding, dilation)
    ]
    return dx, jnp.stack(sums).reshape(kernel.shape).astype(kernel.dtype)


depthwise_conv.defvjp(_depthwise_forward, _depthwise_backward)


def fusion_barrier(x: jax.Array) -> jax.Array:
    """`models.convolution.fusion_barrier`.

    `lax.optimization_barrier` alone is gone before XLA fuses; a call that it may not
    inline stays, and copies nothing.
    """
    with set_xla_metadata(inlineable="false"):
        return jax.jit(lax.optimization_barrier)(x)


def max_pool_3x3_stride2(x: jax.Array, after: int = 1) -> jax.Array:
    """Separable maximum over columns, then rows; see `models.convolution`.

    `after` is the padding below and on the right; above and on the left it is 1.
    64 channels at 64x128, value and gradient: 24 -> 1 ms; written without the choice
    and the interleaving, the gradient takes 12 ms inside BiSeNet.
    """
    padding = ((0, 0), (1, after), (1, after), (0, 0))
    x = jnp.pad(x, padding, constant_values=-jnp.inf)
    return _largest_of_three(_largest_of_three(x, 2), 1)


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def _largest_of_three(x, axis):
    """Maximum of 2i, 2i+1 and 2i+2 along one axis."""
    return _largest_forward(x, axis)[0]


def _largest_forward(x, axis):
    out = (x.shape[axis] - 3) // 2 + 1
    first, second, third = (
        lax.slice_in_dim(x, t, t + 2 * out - 1, stride=2, axis=axis) for t in range(3)
    )
    # On ties the first wins, as in PyTorch.
    best = jnp.where(first >= second, first, second)
    choice = jnp.where(best >= third, (first < second).astype(jnp.int8), 2)
    return jnp.where(best >= third, best, third), (choice, x.shape[axis])


def _largest_backward(axis, residuals, dy):
    choice, length = residuals

    def placed(t, before, after):
        config = [(0, 0, 0)] * dy.ndim
        config[axis] = (before, after, 0)
        return pad(jnp.where(choice == t, dy, 0), config)

    # Interleaved: XLA's padding between elements divides for each of them.
    both = jnp.stack([placed(0, 0, 1) + placed(2, 1, 0), placed(1, 0, 1)], axis + 1)
    dx = both.reshape(*dy.shape[:axis], -1, *dy.shape[axis + 1 :])
    return (lax.slice_in_dim(dx, 0, length, axis=axis),)


_largest_of_three.defvjp(_largest_forward, _largest_backward)
