"""What the goldens of two whole training steps were made with: networks and batches."""

import numpy as np
from models.published_deeplabv2 import fill, published_names, torch_shapes

from uda_jax.labels import IGNORE

C = 5
# One bottleneck in each stage.
BLOCKS = (1, 1, 1, 1)
DISCRIMINATOR = (C, 64, 128, 256, 512, 1)


def segmentor_tensors(model, params, stats):
    """PyTorch's name -> tensor, drawn in the order of the original's state_dict."""
    shapes = torch_shapes(model, params, stats)
    return fill(300, {name: shapes[name] for name in published_names(BLOCKS)})


def discriminator_tensors(seed):
    """ADVENT's names; the goldens' seeds are 400 (auxiliary head) and 401 (main)."""
    shapes = {}
    for i, channels in enumerate(DISCRIMINATOR[1:]):
        shapes[f"{2 * i}.weight"] = (channels, DISCRIMINATOR[i], 4, 4)
        shapes[f"{2 * i}.bias"] = (channels,)
    return fill(seed, shapes)


def batch(step, source_size, target_size):
    """Images as the first convolution sees them, float32, and train ids."""

    def image(seed, size):
        x = np.random.RandomState(seed).randn(1, 3, *size)
        return x.astype(np.float32).transpose(0, 2, 3, 1)

    label = np.random.RandomState(320 + step).randint(-1, C, (1, *source_size))
    return {
        "source": {
            "image": image(310 + step, source_size),
            "label": np.where(label < 0, IGNORE, label).astype(np.uint8),
        },
        "target": {"image": image(330 + step, target_size)},
    }
