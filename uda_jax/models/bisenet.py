"""BiSeNet V1 in the two forms that domain-adaptation papers published.

Yu et al., BiSeNet: Bilateral Segmentation Network, ECCV 2018, as trained by
  - "tufl": Yan et al., T-ITS 2023.  InPlaceABN: y = leaky_relu(xhat * (|gamma| + eps)
    + beta, 0.01); the context path resizes to explicit sizes; FFM attention is a
    two-layer perceptron; no convolution has a bias; logits by align_corners=True.
  - "ss_ada": Yan et al., SS-ADA, 2024.  BatchNorm and ReLU; the context path grows by
    a factor of 2; FFM attention is one convolution with BatchNorm; classifiers have a
    bias; logits by factors of 8 and 16, align_corners=False.
"""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp

from uda_jax.errors import UserError
from uda_jax.models import resnet
from uda_jax.models.initialize import fan_in, fan_out
from uda_jax.models.layers import (
    BatchNorm,
    Conv,
    LayerKit,
    WithDropped,
    clean_and_dropped,
    resize_bilinear,
    resize_nearest,
)
from uda_jax.models.model import (
    Model,
    Prediction,
    TorchNames,
    check_options,
    linen_model,
)

FORMS = ("tufl", "ss_ada")
BACKBONES = ("resnet18",)

# PyTorch's names -> ours and, for each form, back: tables of uda_jax.convert.
TORCH_NAMES = resnet.TORCH_NAMES
FLAX_NAMES = {
    "tufl": resnet.FLAX_NAMES,
    "ss_ada": resnet.FLAX_NAMES + resnet.FLAX_NAMES_TORCHVISION,
}


def bisenet(
    num_classes: int,
    *,
    backbone: str = "resnet18",
    form: str = "tufl",
    width: float = 1.0,
    aux_heads: bool = True,
    batch_norm: str = "train",
    compute_dtype: str = "float32",
    remat: bool = False,
) -> Model:
    """BiSeNet V1 as a pair of pure functions.

    Args:
      num_classes: C of the logits.
      backbone: "resnet18", the published one.
      form: "tufl" or "ss_ada"; the module's docstring says what it changes.
      width: factor on every number of channels but the classes'; 1 is the published
        network, 0.5 costs a third of the time and has no published weights.
      aux_heads: give `aux_logits` (stride 8, stride 16) in training and evaluation.
        Without them the parameters do not exist.
      batch_norm: "train", or "frozen": running statistics even with train=True.
      compute_dtype: "float32" or "bfloat16", of the convolutions; parameters, BatchNorm
        statistics and logits are float32 either way.
      remat: recompute the residual blocks in the backward pass to save memory.

    Returns:
      The model.  `forward` takes any size of at least 1x1; logits have that size.

    Raises:
      UserError: a value that is none of those named.
    """
    check_options(
        "bisenet",
        backbone=(backbone, BACKBONES),
        form=(form, FORMS),
        batch_norm=(batch_norm, ("train", "frozen")),
        compute_dtype=(compute_dtype, ("float32", "bfloat16")),
    )
    if not 0 < width <= 4:
        raise UserError(f"bisenet's width is {width}: choose it above 0 and up to 4.")

    def make(train, use_running):
        del train  # there is no dropout
        return BiSeNet(
            num_classes=num_classes,
            blocks=resnet.BLOCKS[backbone],
            form=form,
            width=width,
            aux_heads=aux_heads,
            use_running=use_running,
            dtype=jnp.dtype(compute_dtype),
            remat=remat,
        )

    return linen_model(
        make,
        initial=_initial,
        batch_norm=batch_norm,
        torch=TorchNames(resnet.TORCH_NAMES, FLAX_NAMES[form]),
        backbone="cp/resnet/",
        heads=r"(ffm|conv_out\w*)/",
    )


def _initial(path, shape, kernel):
    """Kaiming with a=1 (1/sqrt(fan_in)) as the originals.

    The backbone from scratch takes torchvision's kaiming fan_out (sqrt(2/fan_out)).
    Deliberate difference: the originals start from ImageNet weights, where TUFL's three
    shortcut convolutions miss their names and stay at PyTorch's default; here they are
    like the rest.
    """
    if not path.endswith("/kernel"):
        return None
    if path.startswith("cp/resnet/"):
        return "normal", (2 / fan_out(shape)) ** 0.5
    return "normal", fan_in(shape) ** -0.5


class BiSeNet(nn.Module):
    """The network; the attributes are the arguments of `bisenet`.

    Attributes:
      use_running: BatchNorm uses its running statistics and leaves them alone.
    """

    num_classes: int
    blocks: tuple[int, int, int, int]
    form: str
    width: float
    aux_heads: bool
    use_running: bool
    dtype: jnp.dtype
    remat: bool

    @nn.compact
    def __call__(
        self, image: jax.Array, size: tuple[int, int], perturb: bool = False
    ) -> Prediction:
        """[B, H, W, 3] normalised -> Prediction with logits [B, *size, C] float32.

        The auxiliary logits come from the context path at stride 8 ("16" in the
        originals' names) and at stride 16 ("32").

        With `perturb`, fusion and main head run on 2B examples: (sp, cp8) and
        (Dropout(0.5)(sp), Dropout2d(0.5)(cp8)), their BatchNorm's statistics over all
        2B; the auxiliary heads see the clean features only.  SS-ADA's need_fp.
        Deliberate differences: the original fails where cp8 and sp differ in size, here
        cp8 is resized first, as without `perturb`; and the "tufl" form can do it too.
        """
        tufl = self.form == "tufl"
        kit = LayerKit(
            conv=partial(Conv, dtype=self.dtype),
            norm=partial(BatchNorm, self.use_running, absolute_scale=tufl),
            activation=partial(jax.nn.leaky_relu, negative_slope=0.01)
            if tufl
            else jax.nn.relu,
            width=self.width,
        )
        x = image.astype(self.dtype)
        cp8, cp16 = ContextPath(kit, self.blocks, self.form, self.remat, name="cp")(x)
        sp = SpatialPath(kit, name="sp")(x)
        if cp8.shape != sp.shape:  # only where "ss_ada" has doubled an odd size
            cp8 = resize_bilinear(cp8, sp.shape[1:3], align_corners=False)
        spatial, context = sp, cp8
        if perturb:
            spatial = WithDropped(whole_channels=False)(sp)
            context = WithDropped(whole_channels=True)(cp8)
        fused = FeatureFusion(kit, self.form, name="ffm")(spatial, context)
        head = partial(Head, kit, self.num_classes, not tufl)
        logits = [head(256, name="conv_out")(fused)]
        if self.aux_heads:
            logits.append(head(64, name="conv_out16")(cp8))
            logits.append(head(64, name="conv_out32")(cp16))
        logits = [z.astype(jnp.float32) for z in logits]
        if not tufl:  # to the image's size first: no other is a whole factor away
            logits = _grow_by_factors(logits, image.shape[1:3])
        logits = [resize_bilinear(z, size, align_corners=tufl) for z in logits]
        main, perturbed = clean_and_dropped(logits[0]) if perturb else (logits[0], None)
        return Prediction(main, tuple(logits[1:]), (), perturbed)


def _grow_by_factors(logits, size):
    """SS-ADA's upsampling: by 8, 8 and 16, so that cell i covers pixels 8i to 8i+7.

    The original returns 8*ceil(H/8) rows.  Deliberate difference: the rows and columns
    past the image are cut off, which leaves every logit at the pixel where the original
    has it; where H and W are multiples of 8 nothing is cut.
    """
    grown = []
    for z, factor in zip(logits, (8, 8, 16), strict=False):
        by_factor = (z.shape[1] * factor, z.shape[2] * factor)
        z = resize_bilinear(z, by_factor, align_corners=False)
        if grown:
            z = resize_bilinear(z, grown[0].shape[1:3], align_corners=False)
        grown.append(z)
    return [z[:, : size[0], : size[1]] for z in grown]


class ConvNorm(nn.Module):
    """activation(bn(conv(x))): "ConvBNReLU" in the originals."""

    kit: LayerKit
    features: int
    size: int
    stride: int = 1

    @nn.compact
    def __call__(self, x):
        features = self.kit.channels(self.features)
        x = self.kit.conv(features, self.size, self.stride, name="conv")(x)
        return self.kit.activation(self.kit.norm(name="bn")(x))


class AttentionRefinement(nn.Module):
    """f * sigmoid(bn(conv1x1(mean(f)))) with f = ConvNorm3x3(x)."""

    kit: LayerKit

    @nn.compact
    def __call__(self, x):
        f = ConvNorm(self.kit, 128, 3, name="conv")(x)
        attention = jnp.mean(f, axis=(1, 2), keepdims=True)
        attention = self.kit.conv(self.kit.channels(128), 1, name="conv_atten")(
            attention
        )
        return f * jax.nn.sigmoid(self.kit.norm(name="bn_atten")(attention))


class ContextPath(nn.Module):
    """ResNet, attention on its last two stages, and their way back up to stride 8."""

    kit: LayerKit
    blocks: tuple[int, int, int, int]
    form: str
    remat: bool

    @nn.compact
    def __call__(self, x):
        """[B, H, W, 3] -> features of 128 channels at strides 8 and 16."""
        kit = self.kit
        _, f8, f16, f32 = resnet.ResNet(self.blocks, kit, self.remat, name="resnet")(x)
        mean = jnp.mean(f32, axis=(1, 2), keepdims=True)
        mean = ConvNorm(kit, 128, 1, name="conv_avg")(mean)

        a32 = AttentionRefinement(kit, name="arm32")(f32) + mean
        a16 = AttentionRefinement(kit, name="arm16")(f16)
        if self.form == "tufl":
            up32 = resize_nearest(a32, f16.shape[1:3])
        else:
            up32 = resize_nearest(a32, (2 * a32.shape[1], 2 * a32.shape[2]))
            a16 = resize_bilinear(a16, up32.shape[1:3], align_corners=False)
        cp16 = ConvNorm(kit, 128, 3, name="conv_head32")(up32)

        a16 = a16 + cp16
        if self.form == "tufl":
            up16 = resize_nearest(a16, f8.shape[1:3])
        else:
            up16 = resize_nearest(a16, (2 * a16.shape[1], 2 * a16.shape[2]))
        return ConvNorm(kit, 128, 3, name="conv_head16")(up16), cp16


class SpatialPath(nn.Module):
    """Three strided convolutions that keep detail: [B, H, W, 3] -> stride 8, 128."""

    kit: LayerKit

    @nn.compact
    def __call__(self, x):
        x = ConvNorm(self.kit, 64, 7, 2, name="conv1")(x)
        x = ConvNorm(self.kit, 64, 3, 2, name="conv2")(x)
        x = ConvNorm(self.kit, 64, 3, 2, name="conv3")(x)
        return ConvNorm(self.kit, 128, 1, name="conv_out")(x)


class FeatureFusion(nn.Module):
    """f * attention(mean(f)) + f with f = ConvNorm1x1(concatenation of both paths)."""

    kit: LayerKit
    form: str

    @nn.compact
    def __call__(self, spatial, context):
        both = jnp.concatenate([spatial, context], axis=-1)
        f = ConvNorm(self.kit, 256, 1, name="convblk")(both)
        attention = jnp.mean(f, axis=(1, 2), keepdims=True)
        if self.form == "tufl":
            attention = jax.nn.relu(
                self.kit.conv(self.kit.channels(64), 1, name="conv1")(attention)
            )
            attention = self.kit.conv(self.kit.channels(256), 1, name="conv2")(
                attention
            )
        else:
            attention = self.kit.conv(self.kit.channels(256), 1, name="conv")(attention)
            attention = self.kit.norm(name="bn")(attention)
        return f * jax.nn.sigmoid(attention) + f


class Head(nn.Module):
    """Classifier: ConvNorm3x3 to `features`, then a 1x1 convolution to the classes."""

    kit: LayerKit
    num_classes: int
    use_bias: bool
    features: int

    @nn.compact
    def __call__(self, x):
        x = ConvNorm(self.kit, self.features, 3, name="conv")(x)
        return self.kit.conv(
            self.num_classes, 1, use_bias=self.use_bias, name="conv_out"
        )(x)
