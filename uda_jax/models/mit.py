"""Mix Transformer: the encoder of SegFormer and DAFormer.

Xie et al., SegFormer: Simple and Efficient Design for Semantic Segmentation with
Transformers, NeurIPS 2021, section 3.1.  Maps stay [B, H, W, C] throughout; the
original's tokens are their pixels in row-major order.
"""

import re
from collections.abc import Mapping
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from uda_jax.errors import UserError
from uda_jax.models.convolution import fusion_barrier
from uda_jax.models.initialize import fan_out
from uda_jax.models.layers import Conv

# Channels and blocks of the four stages.
VARIANTS = {
    "mit_b0": ((32, 64, 160, 256), (2, 2, 2, 2)),
    "mit_b1": ((64, 128, 320, 512), (2, 2, 2, 2)),
    "mit_b2": ((64, 128, 320, 512), (3, 4, 6, 3)),
    "mit_b3": ((64, 128, 320, 512), (3, 4, 18, 3)),
    "mit_b4": ((64, 128, 320, 512), (3, 8, 27, 3)),
    "mit_b5": ((64, 128, 320, 512), (3, 6, 40, 3)),
}
HEADS = (1, 2, 5, 8)
REDUCTIONS = (8, 4, 2, 1)
MLP_RATIO = 4
# Below this the first stage's map is smaller than one cell of its reduction.
MIN_SIZE = 29

# The originals' names -> ours, and back: tables of uda_jax.convert.
TORCH_NAMES = (
    (r"\bblock(\d)\.(\d+)\.", r"block\1_\2."),
    (r"\.mlp\.dwconv\.dwconv\.", r".mlp.dwconv."),
)
FLAX_NAMES = (
    (r"\bblock(\d)_(\d+)\.", r"block\1.\2."),
    (r"\.mlp\.dwconv\.", r".mlp.dwconv.dwconv."),
)

# Both eps of the original: PyTorch's default where the layer is made without a word.
_NORM_DEFAULT, _NORM = 1e-5, 1e-6


class MiT(nn.Module):
    """The four stages.

    Attributes:
      variant: a key of `VARIANTS`.
      width: factor on the channels of an attention head, rounded to at least one; a
        stage has HEADS times that many.
      drop_path: largest rate of stochastic depth; block i of n has drop_path * i/(n-1).
      train: whether stochastic depth is on; its keys are those of "dropout".
      dtype: of the computation; parameters, statistics of the norms and the softmax
        are float32.
      remat: compute each block's inside again in the backward pass.
    """

    variant: str
    width: float
    drop_path: float
    train: bool
    dtype: jnp.dtype
    remat: bool

    @nn.compact
    def __call__(self, image: jax.Array) -> tuple[jax.Array, ...]:
        """[B, H, W, 3] -> maps [B, ceil(H/s), ceil(W/s), C_s], s = 4, 8, 16, 32.

        Raises:
          UserError: the image is smaller than 29x29.
        """
        if min(image.shape[1:3]) < MIN_SIZE:
            raise UserError(
                f"An image of {image.shape[1]}x{image.shape[2]} is too small for a Mix "
                f"Transformer: give at least {MIN_SIZE}x{MIN_SIZE} pixels."
            )
        published, depths = VARIANTS[self.variant]
        block = nn.remat(Block) if self.remat else Block
        norm = partial(layer_norm, dtype=self.dtype)
        rates = iter(np.linspace(0, self.drop_path, sum(depths)).tolist())
        x, maps = image.astype(self.dtype), []
        for stage, depth in enumerate(depths):
            channels = stage_channels(published[stage], HEADS[stage], self.width)
            x = PatchEmbed(
                channels,
                size=3 if stage else 7,
                stride=2 if stage else 4,
                dtype=self.dtype,
                name=f"patch_embed{stage + 1}",
            )(x)
            for i in range(depth):
                x = block(
                    heads=HEADS[stage],
                    reduction=REDUCTIONS[stage],
                    drop_path=next(rates),
                    train=self.train,
                    dtype=self.dtype,
                    name=f"block{stage + 1}_{i}",
                )(x)
                x = fusion_barrier(x)
            x = norm(name=f"norm{stage + 1}")(x)
            maps.append(x)
        return tuple(maps)


def stage_channels(published: int, heads: int, width: float) -> int:
    """Channels of a stage: a whole number of channels for each of its heads."""
    return heads * max(1, round(published // heads * width))


def layer_norm(*, name, dtype, eps=_NORM):
    """Two passes: the variance as mean(x^2) - mean(x)^2 would lose digits."""
    return nn.LayerNorm(epsilon=eps, dtype=dtype, use_fast_variance=False, name=name)


class PatchEmbed(nn.Module):
    """LayerNorm of a convolution whose windows overlap: "patch_embed"."""

    features: int
    size: int
    stride: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x):
        """[B, H, W, C] -> [B, ceil(H/stride), ceil(W/stride), features]."""
        conv = partial(Conv, use_bias=True, dtype=self.dtype)
        x = conv(self.features, self.size, self.stride, name="proj")(x)
        return layer_norm(name="norm", dtype=self.dtype, eps=_NORM_DEFAULT)(x)


class Block(nn.Module):
    """x + drop(attn(norm1(x))), then x + drop(mlp(norm2(x))).

    `drop` is stochastic depth (Huang et al., ECCV 2016): an example's branch is zero
    with probability `drop_path`, and divided by 1 - drop_path otherwise.  The two
    branches of an example are drawn apart.
    """

    heads: int
    reduction: int
    drop_path: float
    train: bool
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x):
        """[B, H, W, C] -> the same shape."""
        drop = nn.Dropout(
            self.drop_path, broadcast_dims=(1, 2, 3), deterministic=not self.train
        )
        attention = Attention(self.heads, self.reduction, self.dtype, name="attn")
        mlp = MixFFN(self.dtype, name="mlp")
        x = x + drop(attention(layer_norm(name="norm1", dtype=self.dtype)(x)))
        return x + drop(mlp(layer_norm(name="norm2", dtype=self.dtype)(x)))


class Attention(nn.Module):
    """softmax(q k^T / sqrt(d)) v, with keys and values from a map `reduction` smaller.

    The reduction is a convolution whose kernel is as large as its stride, and a
    LayerNorm; rows and columns past the last whole window are not seen.
    """

    heads: int
    reduction: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x):
        """[B, H, W, C] -> the same shape."""
        batch, height, width, channels = x.shape
        dense = partial(nn.Dense, dtype=self.dtype)
        few = x
        if self.reduction > 1:
            conv = partial(Conv, padding=0, use_bias=True, dtype=self.dtype)
            few = conv(channels, self.reduction, self.reduction, name="sr")(x)
            few = layer_norm(name="norm", dtype=self.dtype, eps=_NORM_DEFAULT)(few)
        per_head = channels // self.heads
        q = dense(channels, name="q")(x) * per_head**-0.5
        q = q.reshape(batch, -1, self.heads, per_head)
        kv = dense(2 * channels, name="kv")(few)
        kv = kv.reshape(batch, -1, 2, self.heads, per_head)
        scores = jnp.einsum(
            "bqhd,bkhd->bhqk", q, kv[:, :, 0], preferred_element_type=jnp.float32
        )
        weights = jax.nn.softmax(scores).astype(self.dtype)
        y = jnp.einsum("bhqk,bkhd->bqhd", weights, kv[:, :, 1])
        return dense(channels, name="proj")(y.reshape(batch, height, width, channels))


class MixFFN(nn.Module):
    """fc2(gelu(depthwise3x3(fc1(x)))) with four times the channels inside."""

    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x):
        """[B, H, W, C] -> the same shape."""
        channels, inner = x.shape[-1], MLP_RATIO * x.shape[-1]
        x = nn.Dense(inner, dtype=self.dtype, name="fc1")(x)
        x = Conv(
            inner, 3, groups=inner, use_bias=True, dtype=self.dtype, name="dwconv"
        )(x)
        x = jax.nn.gelu(x, approximate=False)
        return nn.Dense(channels, dtype=self.dtype, name="fc2")(x)


def initial(path, shape, kernel):
    """From scratch, as the original: Linear truncated N(0, 0.02^2), convolution
    N(0, 2 / fan_out) with fan_out = k * k * C_out / groups, biases 0."""
    del kernel
    if not path.endswith("/kernel"):
        return None
    if len(shape) == 2:
        return "truncated_normal", 0.02
    groups = shape[-1] if path.endswith("/dwconv/kernel") else 1
    return "normal", (2 / fan_out(shape, groups)) ** 0.5


# Hugging Face's names of the encoder's tensors, without prefix -> the original's.
_HUGGING_FACE = (
    (r"^patch_embeddings\.(\d)\.layer_norm\.", r"patch_embed{\1}.norm."),
    (r"^patch_embeddings\.(\d)\.proj\.", r"patch_embed{\1}.proj."),
    (r"^layer_norm\.(\d)\.", r"norm{\1}."),
    (r"^block\.(\d)\.(\d+)\.", r"block{\1}.\2."),
    (r"\.attention\.self\.query\.", r".attn.q."),
    (r"\.attention\.self\.sr\.", r".attn.sr."),
    (r"\.attention\.self\.layer_norm\.", r".attn.norm."),
    (r"\.attention\.output\.dense\.", r".attn.proj."),
    (r"\.layer_norm_([12])\.", r".norm\1."),
    (r"\.mlp\.dense([12])\.", r".mlp.fc\1."),
)
_HUGGING_FACE_PREFIX = re.compile(r"^(segformer\.)?encoder\.")
_KEY = ".attention.self.key."


def is_hugging_face(tensors: Mapping[str, np.ndarray]) -> bool:
    """Whether these are Hugging Face's names of a SegFormer's tensors."""
    return any(_HUGGING_FACE_PREFIX.match(name) for name in tensors)


def from_hugging_face(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The same encoder by the names of the original's ImageNet files.

    `segformer.encoder.block.0.1.mlp.dense1.weight` becomes `block1.1.mlp.fc1.weight`;
    key and value are concatenated to `kv`; `classifier.*`, the head for ImageNet's
    classes, becomes `head.*`.  A name that is none of these stays as it is.

    Args:
      tensors: arrays by Hugging Face's names, with the prefix "segformer.encoder." or
        "encoder."; every array in PyTorch's layout.

    Returns:
      Arrays by names such as `patch_embed1.proj.weight`.

    Raises:
      UserError: a key has no value of its shape beside it, or the reverse.
    """
    new = {}
    for name, tensor in tensors.items():
        bare, encoder = _HUGGING_FACE_PREFIX.subn("", name)
        if not encoder:
            new[re.sub(r"^classifier\.", "head.", name)] = tensor
            continue
        if ".attention.self.value." in bare:
            _partner(tensors, name, ".attention.self.value.", _KEY)
            continue
        if _KEY in bare:
            value = _partner(tensors, name, _KEY, ".attention.self.value.")
            tensor = np.concatenate([tensor, value])
            bare = bare.replace(_KEY, ".attn.kv.")
        for pattern, replacement in _HUGGING_FACE:
            bare = re.sub(pattern, replacement, bare)
        bare = re.sub(r"\{(\d)\}", lambda stage: str(int(stage[1]) + 1), bare)
        new[bare] = tensor
    return new


def _partner(tensors, name, part, other):
    """The tensor whose name has `other` in the place of `part`."""
    partner = name.replace(part, other)
    if partner not in tensors or tensors[partner].shape != tensors[name].shape:
        raise UserError(
            f"The file has {name} {tensors[name].shape} but no {partner} of that "
            "shape: get the whole file again."
        )
    return tensors[partner]
