"""The originals' DeepLabV2: options, names of the tensors, and the goldens' weights."""

from functools import cache

import jax
import numpy as np

from uda_jax import convert
from uda_jax.models import create_model

MAXSQUARE = {"branches": 2, "affine": "stem_frozen"}
ADVENT = {"branches": 4, "affine": "frozen"}
R50 = {"form": "mmseg", "backbone": "resnet50"}


@cache
def shapes(num_classes=19, **options):
    model = create_model("deeplabv2", num_classes, **options)
    return model, *jax.eval_shape(model.init, jax.random.key(0))


def batch_norm_names(name):
    return [f"{name}.{x}" for x in ("weight", "bias", "running_mean", "running_var")]


def block_names(block, bottleneck, downsample):
    names = []
    for i in range(1, 4 if bottleneck else 3):
        names += [f"{block}.conv{i}.weight", *batch_norm_names(f"{block}.bn{i}")]
    if downsample:
        names += [f"{block}.downsample.0.weight"]
        names += batch_norm_names(f"{block}.downsample.1")
    return names


def published_names(blocks=(3, 4, 23, 3), heads=(5, 6), bottleneck=True):
    """The original form's state_dict in its order, without BatchNorm's counters."""
    names = ["conv1.weight", *batch_norm_names("bn1")]
    for stage, number in enumerate(blocks, start=1):
        for i in range(number):
            down = i == 0 and (bottleneck or stage > 1)
            names += block_names(f"layer{stage}.{i}", bottleneck, down)
    for head in heads:
        for i in range(4):
            names += [f"layer{head}.conv2d_list.{i}.{x}" for x in ("weight", "bias")]
    return names


def mmseg_names(branches, blocks=(3, 4, 6, 3)):
    names = []
    for conv, norm in ((0, 1), (3, 4), (6, 7)):
        names += [f"backbone.stem.{conv}.weight"]
        names += batch_norm_names(f"backbone.stem.{norm}")
    for stage, number in enumerate(blocks, start=1):
        for i in range(number):
            names += block_names(f"backbone.layer{stage}.{i}", True, i == 0)
    for i in range(branches):
        head = f"decode_head.aspp_modules.{i}.conv"
        names += [f"{head}.weight", f"{head}.bias"]
    return names


def torch_shapes(model, params, stats):
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), (params, stats))
    tensors = convert.to_torch(*zeros, model.torch.to_torch)
    return {name: tensor.shape for name, tensor in tensors.items()}


def fill(seed, shapes):
    """The goldens' tensors, in the order of `shapes`: {name: PyTorch's shape}."""
    random, tensors = np.random.RandomState(seed), {}
    for name, shape in shapes.items():
        if len(shape) == 4:
            value = random.randn(*shape) * np.sqrt(2 / np.prod(shape[1:]))
        elif name.endswith("running_mean"):
            value = 0.1 * random.randn(*shape)
        elif name.endswith("running_var"):
            value = 1 + 0.5 * random.rand(*shape)
        elif name.endswith("weight"):
            value = (0.2 if "bn3" in name else 1) * (1 + 0.1 * random.randn(*shape))
        else:
            value = 0.1 * random.randn(*shape)
        tensors[name] = value.astype(np.float32)
    return tensors
