"""The layers of the networks, numerically PyTorch's: convolution, norm, resize."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from uda_jax.errors import UserError
from uda_jax.models import convolution


@lru_cache(maxsize=256)
def _bilinear_matrix(size_in: int, size_out: int, align_corners: bool) -> np.ndarray:
    """[size_out, size_in] float32: row i holds the weights of output i."""
    i = np.arange(size_out, dtype=np.float64)
    if align_corners:
        source = i * ((size_in - 1) / (size_out - 1) if size_out > 1 else 0.0)
    else:
        source = np.maximum((i + 0.5) * (size_in / size_out) - 0.5, 0.0)
    source = np.minimum(source, size_in - 1)
    weights = np.maximum(0.0, 1.0 - np.abs(source[:, None] - np.arange(size_in)))
    return weights.astype(np.float32)


def resize_bilinear(
    x: jax.Array, size: tuple[int, int], *, align_corners: bool
) -> jax.Array:
    """Bilinear interpolation without anti-aliasing: R_h x R_w^T per channel.

    Equals PyTorch's `interpolate(mode="bilinear", align_corners=...)` for growing and
    shrinking alike.  With `align_corners` output i reads source i*(in-1)/(out-1),
    without it max((i+1/2)*in/out - 1/2, 0).  Two small matrix products, because the
    gradient of a gather is slow.

    Args:
      x: [..., H, W, C] floating point.
      size: (height, width) of the result.
      align_corners: whether the centres of the corner pixels coincide.

    Returns:
      [..., height, width, C], x's dtype; x itself when the size does not change.

    Raises:
      TypeError: x is not floating point; labels take `resize_nearest`.
    """
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise TypeError(
            f"resize_bilinear got {x.dtype}; it takes floating point values: use "
            "resize_nearest for labels"
        )
    height, width = x.shape[-3:-1]
    exact = jax.lax.Precision.HIGHEST  # TF32 would cost three digits on a GPU
    # The axis that grows least first: the intermediate array is then the smaller one.
    axes = [("h", height, size[0]), ("w", width, size[1])]
    for name, size_in, size_out in sorted(axes, key=lambda a: a[2] / a[1]):
        if size_in == size_out:
            continue
        matrix = jnp.asarray(_bilinear_matrix(size_in, size_out, align_corners))
        equation = "oh,...hwc->...owc" if name == "h" else "ow,...hwc->...hoc"
        x = jnp.einsum(equation, matrix.astype(x.dtype), x, precision=exact)
    return x


def resize_nearest(x: jax.Array, size: tuple[int, int]) -> jax.Array:
    """Nearest neighbour by PyTorch's rule: output i reads floor(i * in / out).

    Args:
      x: [..., H, W, C] of any dtype.
      size: (height, width) of the result.

    Returns:
      [..., height, width, C], x's dtype; x itself when the size does not change.
    """
    for axis, wanted in ((x.ndim - 3, size[0]), (x.ndim - 2, size[1])):
        given = x.shape[axis]
        if wanted == given:
            continue
        if wanted % given == 0:
            # A whole factor repeats: the gradient is then a sum instead of a scatter.
            x = jnp.repeat(x, wanted // given, axis=axis)
        else:
            x = jnp.take(x, np.arange(wanted) * given // wanted, axis=axis)
    return x


class Conv(nn.Module):
    """A square convolution with parameters "kernel" [K, K, C_in, C_out] and "bias".

    Attributes:
      features: C_out.
      size: K.
      stride: step in both axes.
      padding: zeros on each side; None is dilation * (K // 2), which keeps the size at
        stride 1.
      dilation: distance of the taps.
      groups: number of groups of channels; the kernel is [K, K, C_in / groups, C_out].
      use_bias: whether there is a bias [C_out].
      dtype: of the computation and of the result; the parameters stay float32.
    """

    features: int
    size: int
    stride: int = 1
    padding: int | None = None
    dilation: int = 1
    groups: int = 1
    use_bias: bool = False
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H, W, C_in] -> [B, H', W', features]."""
        shape = (self.size, self.size, x.shape[-1] // self.groups, self.features)
        kernel = self.param("kernel", nn.initializers.zeros, shape)
        padding = self.padding
        if padding is None:
            padding = self.dilation * (self.size // 2)
        y = convolution.conv(
            x.astype(self.dtype),
            kernel.astype(self.dtype),
            stride=self.stride,
            padding=padding,
            dilation=self.dilation,
            groups=self.groups,
        )
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, (self.features,))
            y = y + bias.astype(self.dtype)
        return y


class BatchNorm(nn.Module):
    """y = (x - mean) / sqrt(var + eps) * scale + bias over all but the last axis.

    In training the statistics are those of the global batch (under `jit` a sharded
    batch is averaged over all devices), with the biased variance n in the denominator;
    the running variance takes the unbiased one, n - 1, as in PyTorch:
    running = 0.9 * running + 0.1 * batch.  Statistics are float32 whatever x is.

    Attributes:
      use_running: normalise by the running statistics and leave them alone; scale and
        bias have gradients all the same.
      absolute_scale: the factor is |scale| + eps, as in InPlaceABN (TUFL's BiSeNet).

    Raises:
      UserError: training statistics of a single value per channel (a batch of one
        behind a global average): their variance says nothing.
    """

    use_running: bool
    absolute_scale: bool = False
    eps: float = 1e-5
    momentum: float = 0.9

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[..., C] -> [..., C] in x's dtype."""
        shape = (x.shape[-1],)
        scale = self.param("scale", nn.initializers.ones, shape)
        bias = self.param("bias", nn.initializers.zeros, shape)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, shape)
        running_var = self.variable("batch_stats", "var", jnp.ones, shape)
        wide = x.astype(jnp.float32)
        if self.use_running:
            mean, var = running_mean.value, running_var.value
        else:
            count = x.size // x.shape[-1]
            if count == 1 and not self.is_initializing():
                raise UserError(
                    "BatchNorm cannot train on one value per channel (batch 1 behind "
                    "a global average): use a batch of at least 2 images or "
                    'batch_norm = "frozen".'
                )
            axes = tuple(range(x.ndim - 1))
            mean = jnp.mean(wide, axes)
            var = jnp.mean(jnp.square(wide - mean), axes)
            if not self.is_initializing():
                keep, unbiased = self.momentum, count / (count - 1)
                running_mean.value = keep * running_mean.value + (1 - keep) * mean
                running_var.value = (
                    keep * running_var.value + (1 - keep) * unbiased * var
                )
        if self.absolute_scale:
            scale = jnp.abs(scale) + self.eps
        factor = scale * jax.lax.rsqrt(var + self.eps)
        return ((wide - mean) * factor + bias).astype(x.dtype)


class WithDropped(nn.Module):
    """Every example twice: as it is, and with half of its features dropped.

    The second is 2 * m * x, with m 0 or 1 at even odds, in evaluation too: a classifier
    that runs on both is asked to say the same of both.  UniMatch's feature perturbation
    (Yang et al., CVPR 2023, section 3.2), and SS-ADA's (Yan et al., 2024).

    Deliberate difference: the originals put all dropped examples behind all clean ones.
    Here the two of an example are neighbours, so that each device's shard of the batch
    holds both; neither BatchNorm nor a convolution sees the order.

    Attributes:
      whole_channels: draw m for each channel of an example (PyTorch's Dropout2d)
        instead of for each value (Dropout).
    """

    whole_channels: bool

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H, W, C] -> [2B, H, W, C] in x's dtype; `clean_and_dropped` parts them.

        The key is that of rngs["dropout"].
        """
        drop = nn.Dropout(
            0.5,
            broadcast_dims=(1, 2) if self.whole_channels else (),
            deterministic=False,
        )
        both = jnp.stack([x, drop(x)], axis=1)
        return both.reshape(-1, *x.shape[1:])


def clean_and_dropped(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The two halves [B, ...] of what came of `WithDropped`'s examples [2B, ...]."""
    pairs = x.reshape(-1, 2, *x.shape[1:])
    return pairs[:, 0], pairs[:, 1]


@dataclass(frozen=True)
class LayerKit:
    """How one network makes its layers.

    Attributes:
      conv: (features, size, stride=1, *, name) -> convolution module.
      norm: (*, name) -> BatchNorm module.
      activation: after most BatchNorms.
      width: factor on the published numbers of channels.
    """

    conv: Callable[..., nn.Module]
    norm: Callable[..., nn.Module]
    activation: Callable[[jax.Array], jax.Array]
    width: float = 1.0

    def channels(self, published: int) -> int:
        """Channels of a layer that has `published` ones in the original."""
        return max(1, round(published * self.width))
