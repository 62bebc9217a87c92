"""ResNet-18, -50 and -101 as backbones of segmentation networks.

He et al., Deep Residual Learning for Image Recognition, CVPR 2016.  Names are
torchvision's, with layer1.0 written layer1_0.
"""

from functools import partial

import flax.linen as nn
import jax

from uda_jax.models.convolution import fusion_barrier, max_pool_3x3_stride2
from uda_jax.models.layers import LayerKit

BLOCKS = {
    "resnet18": (2, 2, 2, 2),
    "resnet50": (3, 4, 6, 3),
    "resnet101": (3, 4, 23, 3),
}
BOTTLENECK = ("resnet50", "resnet101")

# PyTorch's names -> ours, and back: tables of uda_jax.convert.  The shortcut has two
# names in PyTorch: downsample_conv in TUFL, downsample.0 in torchvision.  The three
# convolutions of mmseg's stem stand in one list with their BatchNorms and ReLUs.
TORCH_NAMES = (
    (r"layer(\d)\.(\d+)\.", r"layer\1_\2."),
    (r"\.downsample\.0\.", r".downsample_conv."),
    (r"\.downsample\.1\.", r".downsample_bn."),
    (r"\bstem\.0\.", r"stem_conv1."),
    (r"\bstem\.1\.", r"stem_bn1."),
    (r"\bstem\.3\.", r"stem_conv2."),
    (r"\bstem\.4\.", r"stem_bn2."),
    (r"\bstem\.6\.", r"stem_conv3."),
    (r"\bstem\.7\.", r"stem_bn3."),
)
FLAX_NAMES = ((r"layer(\d)_(\d+)\.", r"layer\1.\2."),)
FLAX_NAMES_TORCHVISION = (
    (r"\.downsample_conv\.", ".downsample.0."),
    (r"\.downsample_bn\.", ".downsample.1."),
)
FLAX_NAMES_STEM = (
    (r"\bstem_conv1\.", "stem.0."),
    (r"\bstem_bn1\.", "stem.1."),
    (r"\bstem_conv2\.", "stem.3."),
    (r"\bstem_bn2\.", "stem.4."),
    (r"\bstem_conv3\.", "stem.6."),
    (r"\bstem_bn3\.", "stem.7."),
)


class BasicBlock(nn.Module):
    """relu(shortcut(x) + bn2(conv2(act(bn1(conv1(x)))))), two 3x3 convolutions.

    The shortcut is x, or a 1x1 convolution with BatchNorm where the shape changes.

    Attributes:
      features: channels of the result.
      stride: of conv1 and of the shortcut.
      kit: the network's layers; after the sum the activation is always ReLU.
      dilation: of both convolutions.
    """

    features: int
    stride: int
    kit: LayerKit
    dilation: int = 1

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H, W, C] -> [B, ceil(H/stride), ceil(W/stride), features]."""
        conv = partial(self.kit.conv, self.features, 3, dilation=self.dilation)
        norm = self.kit.norm
        y = conv(self.stride, name="conv1")(x)
        y = self.kit.activation(norm(name="bn1")(y))
        y = conv(name="conv2")(y)
        y = norm(name="bn2")(y)
        return jax.nn.relu(_shortcut(self.kit, x, self.features, self.stride) + y)


class Bottleneck(nn.Module):
    """relu(shortcut(x) + bn3(conv3(act(bn2(conv2(act(bn1(conv1(x))))))))).

    conv1 and conv3 are 1x1, conv2 is 3x3.  The shortcut is x, or a 1x1 convolution with
    BatchNorm where the shape changes.

    Attributes:
      features: channels of conv1 and conv2; the result has four times as many.
      stride: of one convolution and of the shortcut.
      kit: the network's layers; after the sum the activation is always ReLU.
      dilation: of conv2.
      stride_on_1x1: the stride is conv1's (Caffe), not conv2's (torchvision, mmseg).
    """

    features: int
    stride: int
    kit: LayerKit
    dilation: int = 1
    stride_on_1x1: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H, W, C] -> [B, ceil(H/stride), ceil(W/stride), 4 * features]."""
        conv, norm, act = self.kit.conv, self.kit.norm, self.kit.activation
        first, second = (self.stride, 1) if self.stride_on_1x1 else (1, self.stride)
        y = conv(self.features, 1, first, name="conv1")(x)
        y = act(norm(name="bn1")(y))
        y = conv(self.features, 3, second, dilation=self.dilation, name="conv2")(y)
        y = act(norm(name="bn2")(y))
        y = conv(4 * self.features, 1, name="conv3")(y)
        y = norm(name="bn3")(y)
        return jax.nn.relu(_shortcut(self.kit, x, 4 * self.features, self.stride) + y)


def _shortcut(kit, x, features, stride):
    if stride == 1 and x.shape[-1] == features:
        return x
    x = kit.conv(features, 1, stride, name="downsample_conv")(x)
    return kit.norm(name="downsample_bn")(x)


class ResNet(nn.Module):
    """The four stages of a ResNet, without the classifier.

    Attributes:
      blocks: number of blocks in each stage; the channels are 64, 128, 256, 512, with
        bottlenecks four times as many.
      kit: the network's layers.
      remat: compute each block's inside again in the backward pass instead of
        keeping it.
      bottleneck: `Bottleneck` instead of `BasicBlock`.
      stem: "7x7", or "v1c" for three 3x3 convolutions (He et al., Bag of Tricks for
        Image Classification, CVPR 2019).
      stride_on_1x1: see `Bottleneck`.
      strides: of each stage's first block.
      dilations: of each stage.
      contract: a dilated stage's first block has the dilation before, 1/2 of its own.
      ceil_pool: the max pool keeps the last row of even sizes (`ceil_mode`).
    """

    blocks: tuple[int, int, int, int]
    kit: LayerKit
    remat: bool = False
    bottleneck: bool = False
    stem: str = "7x7"
    stride_on_1x1: bool = False
    strides: tuple[int, int, int, int] = (1, 2, 2, 2)
    dilations: tuple[int, int, int, int] = (1, 1, 1, 1)
    contract: bool = False
    ceil_pool: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> tuple[jax.Array, ...]:
        """[B, H, W, 3] -> the four stages' features, by default at strides 4 to 32."""
        block = Bottleneck if self.bottleneck else BasicBlock
        block = nn.remat(block) if self.remat else block
        if self.bottleneck:
            block = partial(block, stride_on_1x1=self.stride_on_1x1)
        x = self._stem(x)
        x = max_pool_3x3_stride2(x, ceil_mode=self.ceil_pool)
        stages = []
        for stage, count in enumerate(self.blocks):
            dilation = self.dilations[stage]
            for i in range(count):
                contracted = self.contract and i == 0
                x = block(
                    features=self.kit.channels(64 * 2**stage),
                    stride=self.strides[stage] if i == 0 else 1,
                    kit=self.kit,
                    dilation=max(1, dilation // 2) if contracted else dilation,
                    name=f"layer{stage + 1}_{i}",
                )(x)
                x = fusion_barrier(x)
            stages.append(x)
        return tuple(stages)

    def _stem(self, x):
        conv, norm, act = self.kit.conv, self.kit.norm, self.kit.activation
        if self.stem == "7x7":
            x = conv(self.kit.channels(64), 7, 2, name="conv1")(x)
            return act(norm(name="bn1")(x))
        for i, (channels, stride) in enumerate(((32, 2), (32, 1), (64, 1)), start=1):
            x = conv(self.kit.channels(channels), 3, stride, name=f"stem_conv{i}")(x)
            x = act(norm(name=f"stem_bn{i}")(x))
        return x
