"""The patch discriminator that AdaptSegNet and ADVENT share.

Tsai et al., Learning to Adapt Structured Output Space, CVPR 2018; Vu et al., ADVENT,
CVPR 2019; after Radford et al., DCGAN, ICLR 2016.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from uda_jax.errors import UserError
from uda_jax.models.initialize import fan_in, init_from_shapes
from uda_jax.models.layers import Conv
from uda_jax.models.model import PyTree, TorchNames

LAYERS = {"conv1": 64, "conv2": 128, "conv3": 256, "conv4": 512, "classifier": 1}
SMALLEST = 2 ** len(LAYERS)

# Names of the same tensors in both papers' files: tables of uda_jax.convert.  ADVENT
# counts the convolutions and the activations between them.
TORCH = {
    "advent": TorchNames(
        to_flax=tuple((rf"^{2 * i}\.", f"{name}.") for i, name in enumerate(LAYERS)),
        to_torch=tuple((rf"^{name}\.", f"{2 * i}.") for i, name in enumerate(LAYERS)),
    ),
    "adaptsegnet": TorchNames(),
}


class Discriminator(NamedTuple):
    """A network without state that says which domain each region comes from.

    Attributes:
      init: key -> params, a nested dict of float32 arrays.
      forward: (params, x) -> scores; x is [B, H, W, C], e.g. softmax probabilities or
        their self-information; the scores are [B, H // 32, W // 32, 1] float32 before
        any sigmoid.
      torch: the names of the tensors in PyTorch files, "advent" and "adaptsegnet".
    """

    init: Callable[[jax.Array], PyTree]
    forward: Callable[[PyTree, jax.Array], jax.Array]
    torch: Mapping[str, TorchNames] = TORCH


def discriminator(num_classes: int) -> Discriminator:
    """Five 4x4 convolutions of stride 2 with LeakyReLU(0.2) between them.

    64, 128, 256, 512 and 1 channels, padding 1, no norm; weights and biases start
    uniform in +-1/sqrt(16 C_in).

    Args:
      num_classes: C of the input.

    Raises:
      UserError: (forward) an input of another number of channels, or of less than 32
        pixels in height or width.
    """
    network = _Network()

    def init(key):
        x = jax.ShapeDtypeStruct((1, SMALLEST, SMALLEST, num_classes), jnp.float32)
        shapes = jax.eval_shape(network.init, key, x)["params"]
        return init_from_shapes(key, shapes, {}, _initial)[0]

    def forward(params, x):
        _, height, width, channels = x.shape
        if channels != num_classes or min(height, width) < SMALLEST:
            raise UserError(
                f"The discriminator got {height}x{width} with {channels} channels: it "
                f"takes at least {SMALLEST}x{SMALLEST} with {num_classes} channels."
            )
        return network.apply({"params": params}, x)

    return Discriminator(init, forward)


def _initial(path, shape, kernel):
    return "uniform", fan_in(kernel) ** -0.5


class _Network(nn.Module):
    @nn.compact
    def __call__(self, x):
        for name, channels in LAYERS.items():
            x = Conv(channels, 4, 2, padding=1, use_bias=True, name=name)(x)
            if name != "classifier":
                x = nn.leaky_relu(x, 0.2)
        return x
