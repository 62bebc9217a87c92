"""DeepLabV2: numbers of parameters, names, what learns, options, any size."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from published_deeplabv2 import (
    ADVENT,
    MAXSQUARE,
    R50,
    mmseg_names,
    published_names,
    shapes,
)

from uda_jax import augment, convert
from uda_jax.errors import UserError
from uda_jax.models import create_model, deeplabv2, resnet
from uda_jax.models.model import matches

TINY = {"backbone": "resnet18", "width": 0.125}
SMALLER = {"backbone": "five_blocks", "width": 0.125}


def count(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


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
    # Linear in the number of classes: 44_269_760 with 16 follows.
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


@pytest.fixture
def five_blocks(monkeypatch):
    """Two blocks in one stage only: gradients take time to compile by the block."""
    monkeypatch.setitem(resnet.BLOCKS, "five_blocks", (1, 1, 1, 2))


@pytest.mark.parametrize(
    "options",
    [
        MAXSQUARE,
        {**ADVENT, "batch_norm": "frozen", "remat": True},
        {"form": "mmseg"},
    ],
)
def test_gradients_reach_exactly_what_learns(five_blocks, options):
    model = create_model("deeplabv2", 3, **SMALLER, **options)
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
@pytest.mark.parametrize("size", [(1, 1), (100, 72)])
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
