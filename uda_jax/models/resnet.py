"""ResNet-18 as the backbone of a segmentation network.

He et al., Deep Residual Learning for Image Recognition, CVPR 2016.  Names are
torchvision's, with layer1.0 written layer1_0.
"""

import flax.linen as nn
import jax

from uda_jax.models.convolution import fusion_barrier, max_pool_3x3_stride2
from uda_jax.models.layers import LayerKit

BLOCKS = {"resnet18": (2, 2, 2, 2)}

# PyTorch's names -> ours, and back: tables of uda_jax.convert.  The shortcut has two
# names in PyTorch: downsample_conv in TUFL, downsample.0 in torchvision.
TORCH_NAMES = (
    (r"layer(\d)\.(\d+)\.", r"layer\1_\2."),
    (r"\.downsample\.0\.", r".downsample_conv."),
    (r"\.downsample\.1\.", r".downsample_bn."),
)
FLAX_NAMES = ((r"layer(\d)_(\d+)\.", r"layer\1.\2."),)
FLAX_NAMES_TORCHVISION = (
    (r"\.downsample_conv\.", ".downsample.0."),
    (r"\.downsample_bn\.", ".downsample.1."),
)


class BasicBlock(nn.Module):
    """relu(shortcut(x) + bn2(conv2(act(bn1(conv1(x)))))).

    The shortcut is x, or a 1x1 convolution with BatchNorm where the shape changes.

    Attributes:
      features: channels of the result.
      stride: of conv1 and of the shortcut.
      kit: the network's layers; after the sum the activation is always ReLU.
    """

    features: int
    stride: int
    kit: LayerKit

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H, W, C] -> [B, ceil(H/stride), ceil(W/stride), features]."""
        conv, norm = self.kit.conv, self.kit.norm
        y = conv(self.features, 3, self.stride, name="conv1")(x)
        y = self.kit.activation(norm(name="bn1")(y))
        y = conv(self.features, 3, name="conv2")(y)
        y = norm(name="bn2")(y)
        if self.stride != 1 or x.shape[-1] != self.features:
            x = conv(self.features, 1, self.stride, name="downsample_conv")(x)
            x = norm(name="downsample_bn")(x)
        return jax.nn.relu(x + y)


class ResNet(nn.Module):
    """The four stages of a ResNet of basic blocks, without the classifier.

    Attributes:
      blocks: number of blocks in each stage; the channels are 64, 128, 256, 512.
      kit: the network's layers.
      remat: compute each block's inside again in the backward pass instead of
        keeping it.
    """

    blocks: tuple[int, int, int, int]
    kit: LayerKit
    remat: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """[B, H, W, 3] -> features at strides 8, 16 and 32 (128, 256, 512 channels)."""
        block = nn.remat(BasicBlock) if self.remat else BasicBlock
        x = self.kit.conv(self.kit.channels(64), 7, 2, name="conv1")(x)
        x = self.kit.activation(self.kit.norm(name="bn1")(x))
        x = max_pool_3x3_stride2(x)
        stages = []
        for stage, count in enumerate(self.blocks):
            for i in range(count):
                x = block(
                    features=self.kit.channels(64 * 2**stage),
                    stride=2 if stage > 0 and i == 0 else 1,
                    kit=self.kit,
                    name=f"layer{stage + 1}_{i}",
                )(x)
                x = fusion_barrier(x)
            stages.append(x)
        return stages[1], stages[2], stages[3]
