"""DAFormer: a Mix Transformer and a decoder that sees context on all levels at once.

Hoyer et al., DAFormer: Improving Network Architectures and Training Strategies for
Domain-Adaptive Semantic Segmentation, CVPR 2022, section 3.2.
"""

from functools import partial

import flax.linen as nn
import jax.numpy as jnp

from uda_jax.errors import UserError
from uda_jax.models import mit
from uda_jax.models.initialize import fan_in, fan_out
from uda_jax.models.layers import Conv
from uda_jax.models.model import Model, TorchNames
from uda_jax.models.segformer import ConvNorm, Embed, mit_segmentor

DILATIONS = (1, 6, 12, 18)

TORCH_NAMES = (
    *mit.TORCH_NAMES,
    (r"\.embed_layers\.(\d)\.", r".embed_layers_\1."),
    (r"\.aspp_modules\.(\d)\.", r".aspp_modules_\1."),
)
FLAX_NAMES = (
    *mit.FLAX_NAMES,
    (r"\.embed_layers_(\d)\.", r".embed_layers.\1."),
    (r"\.aspp_modules_(\d)\.", r".aspp_modules.\1."),
)


def daformer(
    num_classes: int,
    *,
    backbone: str = "mit_b5",
    channels: int = 256,
    width: float = 1.0,
    drop_path: float = 0.1,
    dropout: float = 0.1,
    batch_norm: str = "train",
    compute_dtype: str = "float32",
    remat: bool = False,
) -> Model:
    """DAFormer as a pair of pure functions.

    Args:
      num_classes: C of the logits.
      backbone: "mit_b0" to "mit_b5"; the published one is B5.
      channels: of the decoder's embeddings and branches, times `width`; 256 as
        published, 64 take a tenth of the decoder's time.
      width: factor on every number of channels but the classes', in the encoder on
        those of one attention head; each is rounded to a whole number of at least 1.
        Other widths than 1 have no published weights.
      drop_path: stochastic depth's largest rate, that of the last block; the first
        block has 0, those between lie on a line.  Only with train=True.
      dropout: rate at which whole channels of an example are dropped before the
        classifier.  Only with train=True.  With both 0 forward needs no key: a teacher
        that uses the batch's statistics in BatchNorm and nothing at random.
      batch_norm: "train", or "frozen": running statistics even with train=True.  There
        is BatchNorm in the decoder only.
      compute_dtype: "float32" or "bfloat16", of products and convolutions; parameters,
        statistics of the norms, the attention's softmax and logits are float32.
      remat: recompute the encoder's blocks and the decoder's separable branches in the
        backward pass to save memory.

    Returns:
      The model.  `forward` takes any size of at least 29x29; logits have that size, by
      bilinear interpolation (align_corners=False) from stride 4.  `features` are the
      encoder's maps at strides 4, 8, 16 and 32, [B, ceil(H/s), ceil(W/s), C_s] in
      compute_dtype.  With train=True it takes rngs={"dropout": key}.

    Raises:
      UserError: a value that is none of those named.
    """
    if channels < 1:
        raise UserError(f"daformer's channels are {channels}: choose at least 1.")
    return mit_segmentor(
        "daformer",
        partial(DAFormerHead, num_classes, channels, remat=remat),
        initial=initial,
        torch=TorchNames(TORCH_NAMES, FLAX_NAMES),
        backbone=backbone,
        width=width,
        drop_path=drop_path,
        dropout=dropout,
        batch_norm=batch_norm,
        compute_dtype=compute_dtype,
        remat=remat,
    )


def initial(path, shape, kernel):
    """The embeddings' Linears as PyTorch's default, U(+-1/sqrt(fan_in)) for weight and
    bias; convolution with BatchNorm N(0, 2 / fan_out), where fan_out = k * k * C_out in
    depthwise ones too; the classifier N(0, 0.01^2), its bias 0."""
    if "/embed_layers_" in path:
        return "uniform", fan_in(kernel) ** -0.5
    if path.endswith("/conv_seg/kernel"):
        return "normal", 0.01
    if path.endswith("/kernel"):
        return "normal", (2 / fan_out(shape)) ** 0.5
    return None


class DAFormerHead(nn.Module):
    """classify(drop(fuse(all levels, embedded, at stride 4))): "daformer_sepaspp".

    Attributes:
      channels: of an embedding and of a branch.
      dropout: rate.
      train: whether dropout is on.
      use_running: BatchNorm uses its running statistics and leaves them alone.
      remat: see `SeparableASPP`.
    """

    num_classes: int
    channels: int
    width: float
    dropout: float
    train: bool
    use_running: bool
    dtype: jnp.dtype
    remat: bool

    @nn.compact
    def __call__(self, maps):
        """Four maps, the finest first -> [B, H/4, W/4, num_classes]."""
        features = max(1, round(self.channels * self.width))
        levels = [
            Embed(features, self.dtype, name=f"embed_layers_{i}")(x, maps[0].shape[1:3])
            for i, x in enumerate(maps)
        ]
        x = jnp.concatenate(levels, axis=-1)
        x = SeparableASPP(
            features, self.use_running, self.dtype, self.remat, name="fuse_layer"
        )(x)
        x = nn.Dropout(
            self.dropout, broadcast_dims=(1, 2), deterministic=not self.train
        )(x)
        return Conv(
            self.num_classes, 1, use_bias=True, dtype=self.dtype, name="conv_seg"
        )(x)


class SeparableASPP(nn.Module):
    """Branches of growing reach, concatenated and squeezed by a 3x3 ConvNorm.

    The first is a 1x1 ConvNorm, the others a depthwise dilated 3x3 ConvNorm and a 1x1
    ConvNorm; there is no image pooling.

    Attributes:
      features: channels of each branch and of the result.
      remat: compute the inside of those others again in the backward pass; it is four
        times as wide as what they give.
    """

    features: int
    use_running: bool
    dtype: jnp.dtype
    remat: bool

    @nn.compact
    def __call__(self, x):
        """[B, H, W, C] -> [B, H, W, features]."""
        conv_norm = partial(ConvNorm, use_running=self.use_running, dtype=self.dtype)
        separable = nn.remat(SeparableConv) if self.remat else SeparableConv
        branches = [conv_norm(self.features, 1, name="aspp_modules_0")(x)]
        for i, dilation in enumerate(DILATIONS[1:], start=1):
            branches.append(
                separable(self.features, dilation, conv_norm, name=f"aspp_modules_{i}")(
                    x
                )
            )
        x = jnp.concatenate(branches, axis=-1)
        return conv_norm(self.features, 3, name="bottleneck")(x)


class SeparableConv(nn.Module):
    """A depthwise 3x3 ConvNorm, then a 1x1 ConvNorm."""

    features: int
    dilation: int
    conv_norm: partial

    @nn.compact
    def __call__(self, x):
        channels = x.shape[-1]
        x = self.conv_norm(
            channels,
            3,
            dilation=self.dilation,
            groups=channels,
            name="depthwise_conv",
        )(x)
        return self.conv_norm(self.features, 1, name="pointwise_conv")(x)
