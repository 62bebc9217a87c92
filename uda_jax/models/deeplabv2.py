"""DeepLabV2 with a ResNet, in the two forms that domain adaptation published.

Chen et al., DeepLab, TPAMI 2018: a dilated ResNet at output stride 8, and as classifier
a sum of 3x3 convolutions with dilations 6, 12, 18, 24.
  - "original": AdaptSegNet (Tsai et al., CVPR 2018), ADVENT (Vu et al., CVPR 2019),
    MaxSquare (Chen et al., ICCV 2019), IntraDA (Pan et al., CVPR 2020).  Caffe's stride
    on the first 1x1 convolution, dilation 2 and 4 in every block of layer3 and layer4,
    a max pool with ceil_mode, a second classifier on layer3, align_corners=True.
  - "mmseg": the CNN baseline of DAFormer (Hoyer et al., CVPR 2022).  A stem of three
    3x3 convolutions, stride on the 3x3, the first block of a dilated stage with half
    the dilation, one classifier, align_corners=False.
How each paper trained it:
    MaxSquare        original, branches=2, affine="stem_frozen"
    AdaptSegNet      original, branches=2, affine="frozen"
    ADVENT, IntraDA  original, branches=4, affine="frozen"
    DAFormer         mmseg, branches=2 ("dlv2red") or 4 ("dlv2"), affine="trained"
AdaptSegNet returned from inside the loop over the branches, so that only two of its
four count; MaxSquare took this over, and DAFormer repeats it on purpose.  The files do
not show it: two branches with a network trained with four give wrong predictions.
"""

from functools import partial
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from uda_jax.augment import MEAN, STD
from uda_jax.errors import UserError
from uda_jax.models import resnet
from uda_jax.models.convolution import dilated_sum
from uda_jax.models.initialize import fan_in, fan_out
from uda_jax.models.layers import (
    BatchNorm,
    Conv,
    LayerKit,
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

DILATIONS = (6, 12, 18, 24)

# Blue, green, red on the 0..255 scale: what Caffe's ImageNet networks subtract.
CAFFE_MEAN = (104.00698793, 116.66876762, 122.67891434)


class Form(NamedTuple):
    """What a form says where `deeplabv2` is not told."""

    branches: int
    multi_level: bool
    affine: str
    input_form: str


FORMS = {
    "original": Form(4, True, "frozen", "caffe_bgr"),
    "mmseg": Form(2, False, "trained", "imagenet"),
}

# Parameters that never change.
AFFINE = {
    "trained": (),
    "stem_frozen": (r"backbone/(stem_)?bn\d/",),
    "frozen": (r"backbone/(\w+/)?\w*bn\d?/",),
}

# The original programs went over every module of the backbone and listed all parameters
# below it, so that one counts once for each module that it is in: its stage, its block,
# its layer, and the shortcut's own pair of layers.
VISITS = {
    "original": (
        (r"backbone/layer\d_\d+/downsample_", 4),
        (r"backbone/layer\d_\d+/", 3),
    ),
    "mmseg": (),
}

# PyTorch's names -> ours and, for each form, back: tables of uda_jax.convert.
TORCH_NAMES = {
    "original": (
        (r"^(conv1|bn1|layer[1-4])\.", r"backbone.\1."),
        (r"^layer5\.conv2d_list\.", "aux_head.branch_"),
        (r"^layer6\.conv2d_list\.", "head.branch_"),
        *resnet.TORCH_NAMES,
    ),
    "mmseg": (
        (r"^decode_head\.aspp_modules\.(\d)\.conv\.", r"head.branch_\1."),
        *resnet.TORCH_NAMES,
    ),
}
FLAX_NAMES = {
    "original": (
        (r"^backbone\.", ""),
        (r"^aux_head\.branch_", "layer5.conv2d_list."),
        (r"^head\.branch_", "layer6.conv2d_list."),
        *resnet.FLAX_NAMES,
        *resnet.FLAX_NAMES_TORCHVISION,
    ),
    "mmseg": (
        (r"^head\.branch_(\d)\.", r"decode_head.aspp_modules.\1.conv."),
        *resnet.FLAX_NAMES,
        *resnet.FLAX_NAMES_TORCHVISION,
        *resnet.FLAX_NAMES_STEM,
    ),
}


def deeplabv2(
    num_classes: int,
    *,
    backbone: str = "resnet101",
    form: str = "original",
    branches: int | None = None,
    multi_level: bool | None = None,
    affine: str | None = None,
    input_form: str | None = None,
    width: float = 1.0,
    batch_norm: str = "train",
    compute_dtype: str = "float32",
    remat: bool = False,
) -> Model:
    """DeepLabV2 as a pair of pure functions.

    `Prediction.features` are the maps of layer1 to layer4, at strides 4, 8, 8, 8; with
    `multi_level`, `aux_logits` holds the logits of the classifier on layer3.

    Args:
      num_classes: C of the logits.
      backbone: "resnet101", "resnet50" or "resnet18" (whose dilated stages dilate both
        convolutions of a block).
      form: "original" or "mmseg"; the module's docstring says what it changes and how
        each paper sets the next four, whose None is the form's row of `FORMS`.
      branches: how many dilations the classifiers sum, 2 or 4.  The original form has
        the parameters of four either way; those of unused branches are frozen.
      multi_level: whether there is a classifier on layer3; only the original form has
        one.
      affine: which scales and biases of BatchNorm learn: "trained" all, "stem_frozen"
        all but the stem's, "frozen" none.
      input_form: what the first convolution sees: "imagenet" the normalised RGB image
        as given, "caffe_bgr" BGR on the 0..255 scale minus Caffe's mean, computed from
        it, for the published weights of the original form.
      width: factor on every number of channels but the classes'; 1 is the published
        network.
      batch_norm: "train", or "frozen": running statistics even with train=True.
      compute_dtype: "float32" or "bfloat16", of the convolutions; parameters, BatchNorm
        statistics and logits are float32 either way.
      remat: recompute the residual blocks in the backward pass to save memory.

    Returns:
      The model.  `forward` takes any size of at least 1x1; logits have that size.
      Deliberate difference: ADVENT's and AdaptSegNet's networks return logits at stride
      8, the auxiliary ones first, and their callers resize; here all forms resize
      inside, to the input's size or to the one that `forward` is told.

    Raises:
      UserError: a value that is none of those named, or an auxiliary classifier asked
        of the mmseg form.
    """
    check_options("deeplabv2", form=(form, tuple(FORMS)))
    given = Form(branches, multi_level, affine, input_form)
    chosen = Form(
        *(
            own if value is None else value
            for value, own in zip(given, FORMS[form], strict=True)
        )
    )
    check_options(
        "deeplabv2",
        backbone=(backbone, tuple(resnet.BLOCKS)),
        branches=(chosen.branches, (2, 4)),
        affine=(chosen.affine, tuple(AFFINE)),
        input_form=(chosen.input_form, ("caffe_bgr", "imagenet")),
        batch_norm=(batch_norm, ("train", "frozen")),
        compute_dtype=(compute_dtype, ("float32", "bfloat16")),
    )
    if not 0 < width <= 4:
        raise UserError(f"deeplabv2's width is {width}: choose it above 0 and up to 4.")
    if form == "mmseg" and chosen.multi_level:
        raise UserError(
            "deeplabv2's mmseg form has no auxiliary classifier for multi_level=True: "
            'leave it out or choose form "original".'
        )

    def make(train, use_running):
        del train  # there is no dropout
        return DeepLabV2(
            num_classes=num_classes,
            backbone=backbone,
            form=form,
            branches=chosen.branches,
            multi_level=chosen.multi_level,
            input_form=chosen.input_form,
            width=width,
            use_running=use_running,
            dtype=jnp.dtype(compute_dtype),
            remat=remat,
        )

    unused = ()
    if form == "original" and chosen.branches == 2:
        unused = (r"(head|aux_head)/branch_[23]/",)
    return linen_model(
        make,
        initial=partial(_initial, form),
        batch_norm=batch_norm,
        torch=TorchNames(TORCH_NAMES[form], FLAX_NAMES[form]),
        backbone="backbone/",
        heads=r"(head|aux_head)/",
        frozen=AFFINE[chosen.affine] + unused,
        visits=VISITS[form],
    )


def _initial(form, path, shape, kernel):
    """Before ImageNet's weights fill the backbone.

    Original: every kernel N(0, 0.01^2), the classifiers' biases uniform in
    +-1/sqrt(9 C_in).  mmseg: the backbone's kernels N(0, 2 / fan_out), the classifier's
    N(0, 0.01^2), its biases 0.
    """
    if path.endswith("/kernel"):
        from_scratch = form == "mmseg" and path.startswith("backbone/")
        return "normal", (2 / fan_out(shape)) ** 0.5 if from_scratch else 0.01
    if form == "original" and path.endswith("/bias") and kernel:
        return "uniform", fan_in(kernel) ** -0.5
    return None


class DeepLabV2(nn.Module):
    """The network; the attributes are the arguments of `deeplabv2`, none of them None.

    Attributes:
      use_running: BatchNorm uses its running statistics and leaves them alone.
    """

    num_classes: int
    backbone: str
    form: str
    branches: int
    multi_level: bool
    input_form: str
    width: float
    use_running: bool
    dtype: jnp.dtype
    remat: bool

    @nn.compact
    def __call__(
        self, image: jax.Array, size: tuple[int, int], perturb: bool = False
    ) -> Prediction:
        """[B, H, W, 3] normalised -> Prediction with logits [B, *size, C] float32.

        With `perturb` the main classifier runs also on Dropout2d(0.5) of layer4's map,
        see `WithDropped`.
        """
        original = self.form == "original"
        kit = LayerKit(
            conv=partial(Conv, dtype=self.dtype),
            norm=partial(BatchNorm, self.use_running),
            activation=jax.nn.relu,
            width=self.width,
        )
        x = caffe_input(image) if self.input_form == "caffe_bgr" else image
        features = resnet.ResNet(
            resnet.BLOCKS[self.backbone],
            kit,
            self.remat,
            bottleneck=self.backbone in resnet.BOTTLENECK,
            stem="7x7" if original else "v1c",
            stride_on_1x1=original,
            strides=(1, 2, 1, 1),
            dilations=(1, 1, 2, 4),
            contract=not original,
            ceil_pool=original,
            name="backbone",
        )(x.astype(self.dtype))

        def logits(x, name):
            head = DilatedClassifier(
                self.num_classes,
                used=self.branches,
                total=len(DILATIONS) if original else self.branches,
                name=name,
            )
            z = head(x).astype(jnp.float32)
            return resize_bilinear(z, size, align_corners=original)

        deepest = features[3]
        if perturb:
            deepest = WithDropped(whole_channels=True)(deepest)
        main = logits(deepest, "head")
        main, perturbed = clean_and_dropped(main) if perturb else (main, None)
        aux = (logits(features[2], "aux_head"),) if self.multi_level else ()
        return Prediction(main, aux, features, perturbed)


def caffe_input(image: jax.Array) -> jax.Array:
    """255 (std * image + mean), blue first, minus CAFFE_MEAN.

    Affine for each pixel, so that zeros around the result are the original's padding.

    Args:
      image: [..., 3] normalised RGB, see `uda_jax.augment.normalize`.

    Returns:
      [..., 3] float32 BGR, between -123 and 151.
    """
    rgb = 255 * (image.astype(jnp.float32) * jnp.array(STD) + jnp.array(MEAN))
    return rgb[..., ::-1] - jnp.array(CAFFE_MEAN)


class DilatedClassifier(nn.Module):
    """Sum over branches of 3x3 convolutions with bias, dilations 6, 12, 18, 24.

    Attributes:
      num_classes: C.
      used: how many branches the sum has.
      total: how many have parameters.
    """

    num_classes: int
    used: int
    total: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H, W, C_in] -> [B, H, W, C], x's dtype."""
        branches = [
            _Branch(self.num_classes, name=f"branch_{i}")(x.shape[-1])
            for i in range(self.total)
        ][: self.used]
        kernels = tuple(kernel.astype(x.dtype) for kernel, _ in branches)
        y = dilated_sum(x, kernels, DILATIONS[: self.used])
        return y + sum(bias for _, bias in branches).astype(x.dtype)


class _Branch(nn.Module):
    """The parameters of one branch: kernel [3, 3, C_in, C] and bias [C]."""

    num_classes: int

    @nn.compact
    def __call__(self, channels: int) -> tuple[jax.Array, jax.Array]:
        shape = (3, 3, channels, self.num_classes)
        return (
            self.param("kernel", nn.initializers.zeros, shape),
            self.param("bias", nn.initializers.zeros, shape[-1:]),
        )
