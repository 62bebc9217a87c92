"""DeepLabV2: parity with the published networks, frozen parts, names, any size."""

import json
from functools import cache
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from jax import lax

from uda_jax import augment, convert
from uda_jax.errors import UserError
from uda_jax.models import convolution, convolution_cpu, create_model, deeplabv2
from uda_jax.models.deeplabv2 import DilatedClassifier
from uda_jax.models.model import matches

GOLDENS = Path(__file__).parent.parent / "goldens"
MAXSQUARE = {"branches": 2, "affine": "stem_frozen"}
ADVENT = {"branches": 4, "affine": "frozen"}
R50 = {"form": "mmseg", "backbone": "resnet50"}
TINY = {"backbone": "resnet18", "width": 0.125}


@cache
def goldens(file):
    return json.loads((GOLDENS / file).read_text())


@cache
def shapes(num_classes=19, **options):
    model = create_model("deeplabv2", num_classes, **options)
    return model, *jax.eval_shape(model.init, jax.random.key(0))


def count(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


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


# --- the original form against MaxSquare's and ADVENT's networks ----------------------


@pytest.fixture(scope="module")
def original():
    """(model, params, batch_stats) with the weights of both papers' goldens.

    The image is drawn as Caffe's input, so the network takes it as it is.
    """
    model, *wanted = shapes(input_form="imagenet", **MAXSQUARE)
    named = torch_shapes(model, *wanted)
    random, tensors = np.random.RandomState(100), {}
    for name in published_names():
        shape = named[name]
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


def assert_recorded(mine, golden, rtol):
    """Every recorded number of an array that PyTorch has as NCHW."""
    assert mine.dtype == jnp.float32
    z = np.asarray(mine, np.float64).transpose(0, 3, 1, 2)
    assert list(z.shape) == golden["shape"]
    flat = z.ravel()
    recorded = {
        "mean": z.mean(),
        "std": z.std(),
        "abs_sum": np.abs(z).sum(),
        "abssum": np.abs(z).sum(),
        "first3": flat[:3],
        "first": flat[:3],
        "mid": flat[flat.size // 2],
        "last": flat[-1],
    }
    for key in golden.keys() - {"shape"}:
        np.testing.assert_allclose(recorded[key], golden[key], rtol=rtol, err_msg=key)


@pytest.mark.parametrize("size", [(64, 96), (65, 97)])
@pytest.mark.parametrize("mode", ["eval", "train"])
def test_original_form_equals_both_published_networks(
    original, predictions, size, mode
):
    _, params, stats = original
    prediction, new_stats = predictions(size, mode)
    key = f"model_{size[0]}x{size[1]}_{mode}"
    golden = goldens("maxsquare_advent.json")[f"maxsq_{key}"]
    assert_recorded(prediction.logits, golden["main"], 1e-3)
    assert_recorded(prediction.aux_logits[0], golden["aux"], 1e-3)
    if mode == "train":
        new = new_stats["backbone"]
        for leaf, name in (
            (new["bn1"]["mean"], "bn1.running_mean0"),
            (new["bn1"]["var"], "bn1.running_var0"),
            (new["layer4_2"]["bn3"]["var"], "layer4.2.bn3.running_var0"),
        ):
            np.testing.assert_allclose(leaf[0], golden[name], rtol=1e-3)
    else:
        jax.tree.map(np.testing.assert_array_equal, new_stats, stats)
    # ADVENT's network is the same up to its four branches and returns stride 8.
    golden = goldens("maxsquare_advent.json")[f"advent_{key}"]
    for name, head, x in (
        ("main", "head", prediction.features[3]),
        ("aux", "aux_head", prediction.features[2]),
    ):
        low = DilatedClassifier(19, 4, 4).apply({"params": params[head]}, x)
        assert_recorded(low, golden[name], 1e-3)


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


@pytest.mark.parametrize("size", [(4, 7), (1, 2)])
def test_cpu_max_pool_with_ceil_mode_equals_plain_xla_on_ties_too(size):
    x = np.random.default_rng(0).integers(0, 3, (2, *size, 3)).astype(np.float32)

    def plain(x):
        pads = ((0, 0), (1, 2), (1, 2), (0, 0))
        return lax.reduce_window(x, -jnp.inf, lax.max, (1, 3, 3, 1), (1, 2, 2, 1), pads)

    mine, pull = jax.vjp(lambda x: convolution_cpu.max_pool_3x3_stride2(x, 2), x)
    theirs, pull_plain = jax.vjp(plain, x)
    assert mine.shape == (2, size[0] // 2 + 1, size[1] // 2 + 1, 3)
    np.testing.assert_array_equal(mine, theirs)
    dy = np.random.default_rng(1).standard_normal(mine.shape).astype(np.float32)
    np.testing.assert_allclose(pull(dy)[0], pull_plain(dy)[0], atol=1e-6)


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
        assert_recorded(mine, recorded, 1e-4)
    low = DilatedClassifier(19, 2, 2).apply(
        {"params": params["head"]}, prediction.features[3]
    )
    assert_recorded(low, golden["dlv2red_r50_logits"], 1e-4)
    # Up-sampled by align_corners=False: the first pixels repeat the first cell.
    np.testing.assert_allclose(
        prediction.logits[:, :4, :4],
        np.broadcast_to(low[:, :1, :1], (2, 4, 4, 19)),
        atol=1e-6,
    )
    assert prediction.aux_logits == ()


# --- counts, names, frozen parts of the full-size networks ----------------------------


def test_numbers_of_parameters():
    _, params, stats = shapes()
    parts = {"head": params["head"], "aux_head": params["aux_head"]}
    for name, part in params["backbone"].items():
        stage = name.split("_")[0]
        parts.setdefault(stage, {})[name] = part
    assert {name: count(part) for name, part in parts.items()} == {
        "conv1": 9_408,
        "bn1": 128,
        "layer1": 215_808,
        "layer2": 1_219_584,
        "layer3": 26_090_496,
        "layer4": 14_964_736,
        "aux_head": 700_492,
        "head": 1_400_908,
    }
    assert count(params) == 44_601_560 and len(jax.tree.leaves(params)) == 328
    # The original's state_dict has a counter for each BatchNorm besides.
    norms = len(jax.tree.leaves(stats)) // 2
    assert len(jax.tree.leaves((params, stats))) + norms == 640
    _, params, stats = shapes(multi_level=False)
    assert count(params) == 43_901_068
    assert len(jax.tree.leaves((params, stats))) + norms == 632
    assert count(shapes(16)[1]) == 44_269_760
    assert count(shapes(13)[1]) == 43_937_960
    _, params, _ = shapes(form="mmseg")
    assert count(params) == 43_219_846 and count(params["head"]) == 700_454


@pytest.mark.parametrize(
    "options, trainable, unused",
    [
        (MAXSQUARE, 44_601_432, 700_454 + 350_246),  # unused ones are in that number
        ({"branches": 2, "affine": "frozen"}, 44_496_216, 700_454 + 350_246),
        (ADVENT, 44_496_216, 0),
        ({"affine": "trained"}, 44_601_560, 0),
    ],
)
def test_exactly_the_published_parameters_are_trainable(options, trainable, unused):
    model = create_model("deeplabv2", 19, **options)
    _, params, _ = shapes()
    frozen = flatten_dict(matches(params, model.frozen), sep="/")
    sizes = {path: leaf.size for path, leaf in flatten_dict(params, sep="/").items()}
    assert sum(n for path, n in sizes.items() if not frozen[path]) == trainable - unused
    for path, is_frozen in frozen.items():
        expected = path.startswith("backbone/") and path.endswith(("scale", "bias"))
        if options["affine"] == "stem_frozen":
            expected = expected and path.startswith("backbone/bn1/")
        if options["affine"] == "trained":
            expected = False
        if unused:
            expected = expected or "branch_2" in path or "branch_3" in path
        assert is_frozen == expected, path


def test_torch_names_come_back(original):
    model, params, stats = original
    tensors = convert.to_torch(params, stats, model.torch.to_torch)
    assert sorted(tensors) == sorted(published_names())
    back = convert.from_torch(tensors, model.torch.to_flax, params, stats)
    jax.tree.map(np.testing.assert_array_equal, back, (params, stats))


@pytest.mark.parametrize(
    "options, names",
    [
        ({"multi_level": False}, published_names(heads=(6,))),
        ({"backbone": "resnet50"}, published_names((3, 4, 6, 3))),
        (
            {"backbone": "resnet18"},
            published_names((2, 2, 2, 2), bottleneck=False),
        ),
        (R50, mmseg_names(2)),
        ({**R50, "branches": 4}, mmseg_names(4)),
    ],
)
def test_torch_names_of_every_form(options, names):
    model, *wanted = shapes(3, width=0.0625, **options)
    random = np.random.default_rng(0)
    tree = jax.tree.map(
        lambda leaf: random.standard_normal(leaf.shape, np.float32), tuple(wanted)
    )
    tensors = convert.to_torch(*tree, model.torch.to_torch)
    assert sorted(tensors) == sorted(names)
    back = convert.from_torch(tensors, model.torch.to_flax, *tree)
    jax.tree.map(np.testing.assert_array_equal, back, tree)


def test_backbone_and_heads_are_the_whole_network():
    model, params, _ = shapes()
    either = jax.tree.map(
        lambda a, b: a != b,
        matches(params, (model.backbone,)),
        matches(params, (model.heads,)),
    )
    assert jax.tree.all(either)


def test_stem_of_the_mmseg_form_freezes_alone():
    model, params, _ = shapes(3, affine="stem_frozen", **R50)
    frozen = flatten_dict(matches(params, model.frozen), sep="/")
    for path, is_frozen in frozen.items():
        assert is_frozen == path.startswith("backbone/stem_bn"), path


# --- behaviour in training ------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        MAXSQUARE,
        {**ADVENT, "batch_norm": "frozen", "remat": True},
        {"form": "mmseg"},
    ],
)
def test_gradients_reach_exactly_what_learns(options):
    model = create_model("deeplabv2", 3, **TINY, **options)
    params, stats = model.init(jax.random.key(0))
    image = jax.random.normal(jax.random.key(1), (2, 17, 24, 3))
    weight = jax.random.normal(jax.random.key(2), (2, 17, 24, 3))

    def loss(params):
        prediction, new = model.forward(params, stats, image, train=True)
        heads = (prediction.logits, *prediction.aux_logits)
        assert all(z.dtype == jnp.float32 for z in heads)
        return sum(jnp.vdot(weight, z) for z in heads), new

    grads, new = jax.jit(jax.grad(loss, has_aux=True))(params)
    branches = options.get("branches", 2)
    for path, g in flatten_dict(grads, sep="/").items():
        layer = path.split("/")[-2]
        learns = "branch_" not in layer or int(layer[-1]) < branches
        if "bn" in layer:
            affine = options.get("affine", "trained")
            stem = path.startswith(("backbone/bn1/", "backbone/stem_bn"))
            learns = affine == "trained" or (affine == "stem_frozen" and not stem)
        assert np.all(np.isfinite(g)) and bool(np.any(g != 0)) == learns, path
    same = jax.tree.map(lambda a, b: bool(np.all(a == b)), stats, new)
    assert set(jax.tree.leaves(same)) == {options.get("batch_norm") == "frozen"}


def test_bfloat16_is_for_the_convolutions_only():
    model, *tree = shapes(3, compute_dtype="bfloat16", remat=True, **R50)
    image = jax.ShapeDtypeStruct((2, 33, 40, 3), jnp.float32)
    prediction, stats = jax.eval_shape(
        lambda p, s, x: model.forward(p, s, x, train=True), *tree, image
    )
    assert {x.dtype for x in prediction.features} == {jnp.dtype("bfloat16")}
    assert prediction.logits.dtype == jnp.float32
    assert {x.dtype for x in jax.tree.leaves(stats)} == {jnp.dtype("float32")}


def test_initial_values_follow_each_original():
    params, stats = create_model("deeplabv2", 5, **TINY).init(jax.random.key(3))
    kernel = params["backbone"]["layer4_0"]["conv2"]["kernel"]
    assert np.std(kernel) == pytest.approx(0.01, rel=0.05)
    head = params["head"]["branch_1"]
    assert np.std(head["kernel"]) == pytest.approx(0.01, rel=0.1)
    assert 0 < np.abs(head["bias"]).max() <= (9 * 64) ** -0.5
    assert np.all(params["backbone"]["bn1"]["scale"] == 1)
    assert np.all(stats["backbone"]["bn1"]["var"] == 1)
    params, _ = create_model("deeplabv2", 5, form="mmseg", **TINY).init(
        jax.random.key(3)
    )
    kernel = params["backbone"]["layer4_0"]["conv2"]["kernel"]
    assert np.std(kernel) == pytest.approx((2 / (9 * 64)) ** 0.5, rel=0.05)
    assert np.std(params["head"]["branch_1"]["kernel"]) == pytest.approx(0.01, rel=0.1)
    assert np.all(params["head"]["branch_1"]["bias"] == 0)


# --- input ----------------------------------------------------------------------------


def test_caffe_input_undoes_the_normalisation():
    image = np.random.default_rng(0).integers(0, 256, (1, 4, 5, 3)).astype(np.uint8)
    caffe = deeplabv2.caffe_input(augment.normalize(image))
    expected = image[..., ::-1] - np.array([104.00698793, 116.66876762, 122.67891434])
    np.testing.assert_allclose(caffe, expected, atol=1e-4)


@pytest.mark.parametrize("form", deeplabv2.FORMS)
@pytest.mark.parametrize("size", [(1, 1), (33, 47), (100, 72)])
def test_logits_have_the_size_of_the_input(form, size):
    model, *tree = shapes(5, backbone="resnet50", form=form)
    for train in (True, False):
        prediction, stats = jax.eval_shape(
            lambda p, s, x, train=train: model.forward(p, s, x, train=train),
            *tree,
            jax.ShapeDtypeStruct((2, *size, 3), jnp.float32),
        )
        logits = (prediction.logits, *prediction.aux_logits)
        heads = 2 if form == "original" else 1
        assert [z.shape for z in logits] == [(2, *size, 5)] * heads
        assert jax.tree.structure(stats) == jax.tree.structure(tree[1])


@pytest.mark.parametrize(
    "options, message",
    [
        ({"form": "orginal"}, 'did you mean "original"'),
        ({"backbone": "resnet152"}, "resnet101"),
        ({"branches": 3}, "2, 4"),
        ({"affine": "stem"}, "stem_frozen"),
        ({"input_form": "caffe_rgb"}, 'did you mean "caffe_bgr"'),
        ({"form": "mmseg", "multi_level": True}, "no auxiliary classifier"),
        ({"width": 0}, "above 0"),
        ({"batch_norm": "eval"}, "frozen"),
        ({"multilevel": True}, 'did you mean "multi_level"'),
    ],
)
def test_wrong_options_are_explained(options, message):
    with pytest.raises(UserError, match=message):
        create_model("deeplabv2", 5, **options)
