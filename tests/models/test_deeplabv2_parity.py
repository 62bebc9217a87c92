"""DeepLabV2: parity with the published networks, by the goldens' numbers."""

import json
from functools import cache
from pathlib import Path

import jax
import numpy as np
import pytest
from published_deeplabv2 import (
    ADVENT,
    MAXSQUARE,
    R50,
    fill,
    published_names,
    shapes,
    torch_shapes,
)
from recorded import assert_recorded

from uda_jax import augment, convert
from uda_jax.models import convolution, create_model, deeplabv2
from uda_jax.models.deeplabv2 import DilatedClassifier

GOLDENS = Path(__file__).parent.parent / "goldens"


@cache
def goldens(file):
    return json.loads((GOLDENS / file).read_text())


@pytest.fixture(scope="module")
def original():
    """(model, params, batch_stats) with the weights of both papers' goldens.

    The image is drawn as Caffe's input, so the network takes it as it is.
    """
    model, *wanted = shapes(input_form="imagenet", **MAXSQUARE)
    named = torch_shapes(model, *wanted)
    tensors = fill(100, {name: named[name] for name in published_names()})
    return model, *convert.from_torch(tensors, model.torch.to_flax, *wanted)


@pytest.fixture(scope="module")
def predictions(original):
    """(size, mode) -> (Prediction, new batch_stats), each computed once.

    Not jitted: the blocks' operations compile once for all of them.
    """
    model, params, stats = original

    @cache
    def predict(size, mode):
        image = np.random.RandomState(101).randn(1, 3, *size) * 50
        image = image.astype(np.float32).transpose(0, 2, 3, 1)
        return model.forward(params, stats, image, train=mode == "train")

    return predict


@pytest.mark.parametrize("size", [(64, 96), (65, 97)])
@pytest.mark.parametrize("mode", ["eval", "train"])
def test_original_form_equals_both_published_networks(
    original, predictions, size, mode
):
    _, params, stats = original
    prediction, new_stats = predictions(size, mode)
    key = f"model_{size[0]}x{size[1]}_{mode}"
    golden = goldens("maxsquare_advent.json")[f"maxsq_{key}"]
    assert_recorded(prediction.logits, golden["main"])
    assert_recorded(prediction.aux_logits[0], golden["aux"])
    if mode == "train":
        new = new_stats["backbone"]
        for leaf, name in (
            (new["bn1"]["mean"], "bn1.running_mean0"),
            (new["bn1"]["var"], "bn1.running_var0"),
            (new["layer4_2"]["bn3"]["var"], "layer4.2.bn3.running_var0"),
        ):
            np.testing.assert_allclose(leaf[0], golden[name], rtol=1e-4)
    else:
        jax.tree.map(np.testing.assert_array_equal, new_stats, stats)
    # ADVENT's network is the same up to its four branches and returns stride 8.
    golden = goldens("maxsquare_advent.json")[f"advent_{key}"]
    for name, head, x in (
        ("main", "head", prediction.features[3]),
        ("aux", "aux_head", prediction.features[2]),
    ):
        low = DilatedClassifier(19, 4, 4).apply({"params": params[head]}, x)
        assert_recorded(low, golden[name])


def test_original_form_takes_normalised_images(original, predictions):
    _, params, stats = original
    raw, _ = predictions((65, 97), "eval")
    caffe = np.random.RandomState(101).randn(1, 3, 65, 97).transpose(0, 2, 3, 1) * 50
    image = (caffe + np.array(deeplabv2.CAFFE_MEAN))[..., ::-1] / 255
    image = ((image - np.array(augment.MEAN)) / augment.STD).astype(np.float32)
    model = create_model("deeplabv2", 19, **ADVENT)
    prediction, _ = model.forward(params, stats, image, train=False)
    for mine, theirs in zip(prediction.features, raw.features, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-3)
    head = {"params": params["head"]}
    low = DilatedClassifier(19, 4, 4).apply(head, prediction.features[3])
    # align_corners=True: the corners of the image are those of the map.
    for corner in ((0, 0), (0, -1), (-1, 0), (-1, -1)):
        np.testing.assert_allclose(
            prediction.logits[0][corner], low[0][corner], rtol=1e-5
        )


def test_max_pool_with_ceil_mode_equals_the_published_one():
    x = np.random.RandomState(30).randn(1, 2, 6, 9).astype(np.float32)
    y = convolution.max_pool_3x3_stride2(x.transpose(0, 2, 3, 1), ceil_mode=True)
    golden = goldens("maxsquare_advent.json")["maxpool_ceil"]
    assert list(y.transpose(0, 3, 1, 2).shape) == golden["shape"]
    np.testing.assert_array_equal(y[0, -1, :, 0], np.float32(golden["row_last"]))


# --- mmseg's form ---------------------------------------------------------------------


def test_mmseg_form_equals_the_published_network():
    model, *wanted = shapes(**R50)
    tensors = {}
    for name, shape in torch_shapes(model, *wanted).items():
        phase = 0.11 * (sum(name.encode()) % 97)
        s = np.sin(0.37 * np.arange(np.prod(shape)) + phase).reshape(shape)
        if name.endswith("running_var"):
            s = 1 + 0.2 * s**2
        elif name.endswith("running_mean"):
            s = 0.05 * s
        elif len(shape) == 4:
            s = s / np.sqrt(np.prod(shape[1:]))
        else:
            s = 1 + 0.1 * s if name.endswith("weight") else 0.02 * s
        tensors[name] = s.astype(np.float32)
    params, stats = convert.from_torch(tensors, model.torch.to_flax, *wanted)
    b, i, j, c = np.ogrid[:2, :64, :96, :3]
    image = np.sin(0.05 * (i + 1) * (c + 1) + 0.7 * b)
    image = (image + np.cos(0.03 * (j + 1) * (c + 2))).astype(np.float32)
    forward = jax.jit(lambda p, s, x: model.forward(p, s, x, train=False)[0])
    prediction = forward(params, stats, image)
    golden = goldens("daformer.json")
    for mine, recorded in zip(prediction.features, golden["r50v1c_feats"], strict=True):
        assert_recorded(mine, recorded)
    low = DilatedClassifier(19, 2, 2).apply(
        {"params": params["head"]}, prediction.features[3]
    )
    assert_recorded(low, golden["dlv2red_r50_logits"])
    # Up-sampled by align_corners=False: the first pixels repeat the first cell.
    np.testing.assert_allclose(
        prediction.logits[:, :4, :4],
        np.broadcast_to(low[:, :1, :1], (2, 4, 4, 19)),
        atol=1e-6,
    )
    assert prediction.aux_logits == ()


def test_torch_names_come_back(original):
    model, params, stats = original
    tensors = convert.to_torch(params, stats, model.torch.to_torch)
    assert sorted(tensors) == sorted(published_names())
    back = convert.from_torch(tensors, model.torch.to_flax, params, stats)
    jax.tree.map(np.testing.assert_array_equal, back, (params, stats))
