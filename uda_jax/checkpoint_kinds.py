"""The table of the checkpoints that users own: `KINDS`.

They are known by the names and shapes of their tensors (`uda_jax.recognise`).  To add a
file format, add a row.
"""

import re
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from uda_jax.convert import Table
from uda_jax.errors import UserError
from uda_jax.models import mit, resnet

Tensors = Mapping[str, np.ndarray]
Shape = tuple[int | None, ...]  # None: any number

BRANCHES = (
    "a DeepLabV2 file does not say how many branches its network sums: give "
    "--branches=2 for MaxSquare and AdaptSegNet, --branches=4 for ADVENT, MinEnt and "
    "IntraDA"
)


class Kind(NamedTuple):
    """One row of the table.

    Attributes:
      name: for messages, the log and the JSON file.
      has: names of tensors that must be there, with their shapes.
      models: the networks, keys of MODELS; for a whole network its one.
      options: tensors -> the network's options that names and shapes show.
      classes: the tensor and its axis that count classes; ("", 0) for files that hold
        only a backbone.
      table: from the names of a backbone's tensors to ours below the backbone.
      drops: (regular expression, rule) of tensors that the network does not have.
      asks: (option, sentence) that neither names nor shapes show.
    """

    name: str
    has: dict[str, Shape]
    models: tuple[str, ...]
    options: Callable[[Tensors], dict[str, Any]]
    classes: tuple[str, int] = ("", 0)
    table: Table = ()
    drops: tuple[tuple[str, str], ...] = ()
    asks: tuple[tuple[str, str], ...] = ()


# --- what shapes show -----------------------------------------------------------------


def _resnet(tensors: Tensors, prefix: str = "") -> dict[str, Any]:
    """{"backbone": ...} by the blocks of layer1 to layer4."""
    found = re.compile(re.escape(prefix) + r"layer([1-4])\.(\d+)\.conv1\.weight")
    layers = Counter(m[1] for name in tensors if (m := found.fullmatch(name)))
    blocks = tuple(layers[stage] for stage in "1234")
    deep = f"{prefix}layer1.0.conv3.weight" in tensors
    for name, counts in resnet.BLOCKS.items():
        if counts == blocks and (name in resnet.BOTTLENECK) == deep:
            return {"backbone": name}
    kind = "bottlenecks" if deep else "basic blocks"
    raise UserError(
        f"its ResNet has {blocks} {kind}; known are {', '.join(resnet.BLOCKS)}."
    )


def _mit(tensors: Tensors, prefix: str = "") -> dict[str, Any]:
    """{"backbone": ...} by the blocks of the stages and the first stage's width."""
    found = re.compile(re.escape(prefix) + r"block([1-4])\.(\d+)\.norm1\.weight")
    stages = Counter(m[1] for name in tensors if (m := found.fullmatch(name)))
    depths = tuple(stages[stage] for stage in "1234")
    first = tensors[f"{prefix}patch_embed1.proj.weight"].shape[0]
    fitting = {
        n: dims[0] for n, (dims, blocks) in mit.VARIANTS.items() if blocks == depths
    }
    if not fitting:
        raise UserError(
            f"its Mix Transformer has {depths} blocks; known are "
            f"{', '.join(mit.VARIANTS)}."
        )
    name = next((n for n, dim in fitting.items() if dim == first), min(fitting))
    return {"backbone": name, **_width(first, fitting[name])}


def _bisenet(form: str) -> Callable[[Tensors], dict[str, Any]]:
    return lambda tensors: {
        "backbone": _resnet(tensors, "cp.resnet.")["backbone"],
        "form": form,
        "aux_heads": "conv_out16.conv_out.weight" in tensors,
        **_width(len(tensors["cp.resnet.conv1.weight"]), 64),
    }


def _deeplab(tensors: Tensors) -> dict[str, Any]:
    return {
        "form": "original",
        "multi_level": "layer5.conv2d_list.0.weight" in tensors,
        **_resnet(tensors),
        **_width(len(tensors["conv1.weight"]), 64),
    }


def _mmseg(tensors: Tensors) -> dict[str, Any]:
    branches = r"decode_head\.aspp_modules\.\d\.conv\.weight"
    return {
        "form": "mmseg",
        "branches": sum(bool(re.fullmatch(branches, name)) for name in tensors),
        **_resnet(tensors, "backbone."),
        **_width(len(tensors["backbone.stem.6.weight"]), 64),
    }


def _daformer(tensors: Tensors) -> dict[str, Any]:
    options = _mit_and_decoder(tensors, "decode_head.conv_seg.weight")
    if options["channels"] == 256:
        del options["channels"]
    return options


def _segformer(tensors: Tensors) -> dict[str, Any]:
    return _mit_and_decoder(tensors, "decode_head.linear_pred.weight")


def _mit_and_decoder(tensors: Tensors, classifier: str) -> dict[str, Any]:
    encoder = _mit(tensors, "backbone.")
    channels = tensors[classifier].shape[1]
    return {"channels": round(channels / encoder.get("width", 1)), **encoder}


def _width(channels: int, published: int) -> dict[str, float]:
    """{"width": ...} of a network with fewer or more channels than published."""
    return {} if channels == published else {"width": channels / published}


# --- the table: the first row whose tensors are there ---------------------------------

_IMAGENET_HEAD = (r"(fc|head|classifier)\.", "classifier of ImageNet's classes")
_ANY = (None,) * 4
_RESNET = {"conv1.weight": (None, 3, 7, 7), "layer1.0.conv1.weight": _ANY}
_MIT = {"backbone.patch_embed1.proj.weight": _ANY}

KINDS = (
    Kind(
        "TUFL's BiSeNet",
        has={"cp.resnet.conv1.weight": _ANY, "ffm.conv1.weight": _ANY},
        models=("bisenet",),
        options=_bisenet("tufl"),
        classes=("conv_out.conv_out.weight", 0),
    ),
    Kind(
        "SS-ADA's BiSeNet",
        has={"cp.resnet.conv1.weight": _ANY, "ffm.conv.weight": _ANY},
        models=("bisenet",),
        options=_bisenet("ss_ada"),
        classes=("conv_out.conv_out.weight", 0),
    ),
    Kind(
        "DeepLabV2 of MaxSquare, AdaptSegNet, ADVENT or IntraDA",
        has={**_RESNET, "layer6.conv2d_list.0.weight": _ANY},
        models=("deeplabv2",),
        options=_deeplab,
        classes=("layer6.conv2d_list.0.weight", 0),
        asks=(("branches", BRANCHES),),
    ),
    Kind(
        "initial weights of DeepLabV2",
        has={**_RESNET, "layer5.conv2d_list.0.weight": (21, 2048, 3, 3)},
        models=("deeplabv2",),
        options=lambda tensors: {**_resnet(tensors), "input_form": "caffe_bgr"},
        table=resnet.TORCH_NAMES,
        drops=((r"layer5\.", "classifier of 21 classes on 2048 channels"),),
    ),
    Kind(
        "DeepLabV2 of mmseg or DAFormer",
        has={
            "backbone.stem.6.weight": _ANY,
            "decode_head.aspp_modules.0.conv.weight": _ANY,
        },
        models=("deeplabv2",),
        options=_mmseg,
        classes=("decode_head.aspp_modules.0.conv.weight", 0),
    ),
    Kind(
        "DAFormer",
        has={**_MIT, "decode_head.fuse_layer.bottleneck.conv.weight": _ANY},
        models=("daformer",),
        options=_daformer,
        classes=("decode_head.conv_seg.weight", 0),
    ),
    Kind(
        "SegFormer",
        has={**_MIT, "decode_head.linear_pred.weight": _ANY},
        models=("segformer",),
        options=_segformer,
        classes=("decode_head.linear_pred.weight", 0),
    ),
    Kind(
        "Mix Transformer",
        has={"patch_embed1.proj.weight": _ANY},
        models=("daformer", "segformer"),
        options=_mit,
        table=mit.TORCH_NAMES,
        drops=(_IMAGENET_HEAD,),
    ),
    Kind(
        "ResNet-v1c of mmseg",
        has={"stem.0.weight": _ANY, "layer1.0.conv1.weight": _ANY},
        models=("deeplabv2",),
        options=lambda tensors: {"form": "mmseg", **_resnet(tensors)},
        table=resnet.TORCH_NAMES,
        drops=(_IMAGENET_HEAD,),
    ),
    Kind(
        "torchvision's ResNet",
        has=_RESNET,
        models=("deeplabv2", "bisenet"),
        # It was trained on normalised RGB, unlike the original form's own file.
        options=lambda tensors: {**_resnet(tensors), "input_form": "imagenet"},
        table=resnet.TORCH_NAMES,
        drops=(_IMAGENET_HEAD,),
    ),
    Kind(
        "ADVENT's discriminator",
        has={f"{i}.weight": (None, None, 4, 4) for i in (0, 2, 4, 6, 8)},
        models=("discriminator",),
        options=lambda tensors: {"naming": "advent"},
        classes=("0.weight", 1),
    ),
    Kind(
        "AdaptSegNet's discriminator",
        has={f"{n}.weight": (None, None, 4, 4) for n in ("conv1", "classifier")},
        models=("discriminator",),
        options=lambda tensors: {"naming": "adaptsegnet"},
        classes=("conv1.weight", 1),
    ),
)
