"""SegFormer: a Mix Transformer and a decoder of linear layers.

Xie et al., SegFormer: Simple and Efficient Design for Semantic Segmentation with
Transformers, NeurIPS 2021, section 3.2, in the form in which DAFormer compares with it:
the four levels are concatenated from fine to coarse, where the authors' own program
(and Hugging Face's) goes from coarse to fine.
"""

from collections.abc import Callable, Mapping
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from uda_jax.errors import UserError
from uda_jax.models import mit
from uda_jax.models.initialize import Rule, fan_in, fan_out
from uda_jax.models.layers import (
    BatchNorm,
    Conv,
    WithDropped,
    clean_and_dropped,
    resize_bilinear,
)
from uda_jax.models.model import (
    Model,
    Prediction,
    TorchNames,
    check_options,
    linen_model,
)

CHANNELS = (256, 768)
# Input channels of the classifier that the originals' base class makes and this head
# never uses; it is in every checkpoint.
UNUSED_CHANNELS = 128

TORCH_NAMES = (*mit.TORCH_NAMES, (r"\.linear_c\.(\d)\.", r".linear_c_\1."))
FLAX_NAMES = (*mit.FLAX_NAMES, (r"\.linear_c_(\d)\.", r".linear_c.\1."))


def segformer(
    num_classes: int,
    *,
    backbone: str = "mit_b5",
    channels: int = 768,
    width: float = 1.0,
    drop_path: float = 0.1,
    dropout: float = 0.1,
    batch_norm: str = "train",
    compute_dtype: str = "float32",
    remat: bool = False,
) -> Model:
    """SegFormer as a pair of pure functions.

    Args:
      num_classes: C of the logits.
      backbone: "mit_b0" to "mit_b5".
      channels: of the decoder, 768 (published with B2 to B5) or 256 (with B0 and B1).
      width: factor on every number of channels but the classes'; see `daformer`.
      drop_path, dropout, batch_norm, compute_dtype: see `daformer`.
      remat: recompute the encoder's blocks in the backward pass to save memory.

    Returns:
      The model.  `forward` takes any size of at least 29x29; logits have that size;
      `features` are the encoder's four maps.  The parameter `decode_head/conv_seg`,
      which the original has and never uses, is frozen.

    Raises:
      UserError: a value that is none of those named.
    """
    check_options("segformer", channels=(channels, CHANNELS))
    return mit_segmentor(
        "segformer",
        partial(SegFormerHead, num_classes, channels),
        initial=initial,
        torch=TorchNames(TORCH_NAMES, FLAX_NAMES),
        frozen=(r"decode_head/conv_seg/",),
        backbone=backbone,
        width=width,
        drop_path=drop_path,
        dropout=dropout,
        batch_norm=batch_norm,
        compute_dtype=compute_dtype,
        remat=remat,
    )


def mit_segmentor(
    name: str,
    head: Callable[..., nn.Module],
    *,
    initial: Rule,
    torch: TorchNames,
    frozen: tuple[str, ...] = (),
    backbone: str,
    width: float,
    drop_path: float,
    dropout: float,
    batch_norm: str,
    compute_dtype: str,
    remat: bool,
) -> Model:
    """A Mix Transformer with a decoder.

    Args:
      name: the network's, for messages.
      head: (*, width, dropout, train, use_running, dtype, name) -> module that maps the
        four maps to logits at stride 4.
      initial: initial values of the decoder, see `init_from_shapes`.
      torch, frozen: of Model.
      **rest: the options of `daformer`.
    """
    check_options(
        name,
        backbone=(backbone, tuple(mit.VARIANTS)),
        batch_norm=(batch_norm, ("train", "frozen")),
        compute_dtype=(compute_dtype, ("float32", "bfloat16")),
    )
    if not 0 < width <= 4:
        raise UserError(f"{name}'s width is {width}: choose it above 0 and up to 4.")
    for key, rate in (("drop_path", drop_path), ("dropout", dropout)):
        if not 0 <= rate < 1:
            raise UserError(
                f"{name}'s {key} is {rate}: choose a rate from 0 to below 1."
            )
    dtype = jnp.dtype(compute_dtype)

    def make(train, use_running):
        options = {"width": width, "train": train, "dtype": dtype}
        return Segmentor(
            encoder=partial(
                mit.MiT, backbone, drop_path=drop_path, remat=remat, **options
            ),
            head=partial(head, dropout=dropout, use_running=use_running, **options),
            needs_key=name if train and max(drop_path, dropout) > 0 else None,
        )

    return linen_model(
        make,
        initial=lambda path, shape, kernel: (
            mit.initial if path.startswith("backbone/") else initial
        )(path, shape, kernel),
        batch_norm=batch_norm,
        torch=torch,
        backbone="backbone/",
        heads="decode_head/",
        frozen=frozen,
    )


class Segmentor(nn.Module):
    """Encoder, decoder and the way back to the input's size, or another.

    Attributes:
      encoder: (*, name) -> module from an image to maps, the finest first.
      head: (*, name) -> module from those maps to logits.
      needs_key: name of the network where it draws random numbers, else None.
    """

    encoder: Callable[..., nn.Module]
    head: Callable[..., nn.Module]
    needs_key: str | None

    @nn.compact
    def __call__(
        self, image: jax.Array, size: tuple[int, int], perturb: bool = False
    ) -> Prediction:
        """[B, H, W, 3] normalised -> Prediction with logits [B, *size, C] float32.

        With `perturb` the decoder runs on the maps and on Dropout2d(0.5) of each, see
        `WithDropped`, its BatchNorm's statistics over both; in training its own dropout
        comes on top of either.

        Raises:
          UserError: random numbers are needed and there is no key for them.
        """
        if self.needs_key and not self.has_rng("dropout"):
            raise UserError(
                f"{self.needs_key} trains with dropout and drop path but forward got "
                'no key for them: pass rngs={"dropout": key}, or build it with '
                "dropout=0 and drop_path=0."
            )
        maps = self.encoder(name="backbone")(image)
        seen = maps
        if perturb:
            seen = tuple(WithDropped(whole_channels=True)(x) for x in maps)
        logits = self.head(name="decode_head")(seen).astype(jnp.float32)
        logits = resize_bilinear(logits, size, align_corners=False)
        main, perturbed = clean_and_dropped(logits) if perturb else (logits, None)
        return Prediction(main, (), maps, perturbed)


class Embed(nn.Module):
    """A linear layer on every pixel, then bilinear to `size`: "MLP" in the original."""

    features: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x, size):
        x = nn.Dense(self.features, dtype=self.dtype, name="proj")(x)
        return resize_bilinear(x, size, align_corners=False)


class ConvNorm(nn.Module):
    """relu(bn(conv(x))), without bias: "ConvModule" in the originals."""

    features: int
    size: int
    use_running: bool
    dtype: jnp.dtype
    dilation: int = 1
    groups: int = 1

    @nn.compact
    def __call__(self, x):
        x = Conv(
            self.features,
            self.size,
            dilation=self.dilation,
            groups=self.groups,
            dtype=self.dtype,
            name="conv",
        )(x)
        return jax.nn.relu(BatchNorm(self.use_running, name="bn")(x))


class SegFormerHead(nn.Module):
    """classify(drop(relu(bn(conv1x1(all levels, embedded, at stride 4)))))."""

    num_classes: int
    channels: int
    width: float
    dropout: float
    train: bool
    use_running: bool
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, maps):
        """Four maps -> [B, H/4, W/4, num_classes]."""
        features = max(1, round(self.channels * self.width))
        levels = [
            Embed(features, self.dtype, name=f"linear_c_{i}")(x, maps[0].shape[1:3])
            for i, x in enumerate(maps)
        ]
        x = jnp.concatenate(levels, axis=-1)
        x = ConvNorm(features, 1, self.use_running, self.dtype, name="linear_fuse")(x)
        x = nn.Dropout(
            self.dropout, broadcast_dims=(1, 2), deterministic=not self.train
        )(x)
        classify = partial(Conv, self.num_classes, 1, use_bias=True, dtype=self.dtype)
        if self.is_initializing():
            classify(name="conv_seg")(jnp.zeros((1, 1, 1, UNUSED_CHANNELS)))
        return classify(name="linear_pred")(x)


def initial(path, shape, kernel):
    """Embeddings and `linear_pred` as PyTorch's default, U(+-1/sqrt(fan_in))
    for weight and bias; convolution with BatchNorm N(0, 2 / fan_out); the unused
    classifier N(0, 0.01^2)."""
    if "/linear_c_" in path or "/linear_pred/" in path:
        return "uniform", fan_in(kernel) ** -0.5
    if path.endswith("/conv_seg/kernel"):
        return "normal", 0.01
    if path.endswith("/kernel"):
        return "normal", (2 / fan_out(shape)) ** 0.5
    return None


# Hugging Face's names of the decoder's layers -> the original's.
_HUGGING_FACE = (
    ("linear_fuse", "linear_fuse.conv"),
    ("batch_norm", "linear_fuse.bn"),
    ("classifier", "linear_pred"),
)


def from_hugging_face(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The same SegFormer by the names, and in the order, of DAFormer's checkpoints.

    The encoder as in `mit.from_hugging_face`, with the prefix "backbone.".  Hugging
    Face concatenates the levels from coarse to fine, so the four blocks of input
    channels of `linear_fuse` change their order.  The unused `conv_seg`, which these
    files do not have, becomes zeros.

    Args:
      tensors: arrays by Hugging Face's names, in PyTorch's layout.

    Raises:
      UserError: see `mit.from_hugging_face`; or the decoder is not whole.
    """
    head = {k: v for k, v in tensors.items() if k.startswith("decode_head.")}
    rest = {k: v for k, v in tensors.items() if k not in head}
    encoder = mit.from_hugging_face(rest)
    new = {f"backbone.{name}": tensor for name, tensor in encoder.items()}
    for name, tensor in head.items():
        for theirs, ours in _HUGGING_FACE:
            name = name.replace(f".{theirs}.", f".{ours}.")
        new[name] = tensor
    fuse = "decode_head.linear_fuse.conv.weight"
    classify = "decode_head.linear_pred.bias"
    for needed, axes in ((fuse, 4), (classify, 1)):
        if needed not in new or new[needed].ndim != axes:
            raise UserError(
                f"The file has nothing with {axes} axes for {needed}: choose a file of "
                "Hugging Face's SegformerForSemanticSegmentation, or its encoder alone."
            )
    new[fuse] = np.concatenate(np.array_split(new[fuse], 4, axis=1)[::-1], axis=1)
    num_classes = len(new[classify])
    unused = np.zeros((num_classes, UNUSED_CHANNELS, 1, 1), np.float32)
    new["decode_head.conv_seg.weight"] = unused
    new["decode_head.conv_seg.bias"] = unused[:, 0, 0, 0]
    return new
