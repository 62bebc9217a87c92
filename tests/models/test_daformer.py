"""DAFormer and SegFormer: parity with the originals, training behaviour, options."""

import json
from functools import lru_cache, partial, reduce
from pathlib import Path
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from double_precision import in_double, run_in_double
from published_mit import VARIANTS, daformer_shapes, image, segformer_shapes, tensors
from recorded import assert_recorded

from uda_jax import convert
from uda_jax.errors import UserError
from uda_jax.inference import inference_options, probabilities
from uda_jax.models import create_model, mit
from uda_jax.models.daformer import DAFormerHead, SeparableASPP
from uda_jax.models.layers import resize_bilinear
from uda_jax.models.segformer import SegFormerHead

GOLDENS = Path(__file__).parent.parent / "goldens" / "daformer.json"
HEAD = {
    "width": 1.0,
    "dropout": 0.1,
    "train": False,
    "use_running": True,
    "dtype": jnp.float32,
}
DROPOUT = {"dropout": jax.random.key(7)}


@pytest.fixture(scope="module")
def goldens():
    return json.loads(GOLDENS.read_text())


def published(name, backbone, published_shapes, **options):
    """(model, params, batch_stats, jitted evaluation) with the goldens' weights."""
    model = create_model(name, 19, backbone=backbone, **options)
    wanted = jax.eval_shape(model.init, jax.random.key(0))
    trees = convert.from_torch(tensors(published_shapes), model.torch.to_flax, *wanted)
    return model, *trees, jax.jit(lambda x: model.forward(*trees, x, train=False)[0])


@pytest.fixture(scope="module")
def daformer():
    return published("daformer", "mit_b0", daformer_shapes("mit_b0"))


@pytest.fixture(scope="module")
def segformer():
    # The golden is a B1 with 768 channels in the decoder.
    shapes = segformer_shapes("mit_b1", 768)
    return published("segformer", "mit_b1", shapes, channels=768)


@pytest.fixture(scope="module")
def predictions(daformer, segformer):
    x = image(2, 64, 96)
    return {"daformer": daformer[3](x), "segformer": segformer[3](x)}


def test_encoder_maps_equal_the_originals():
    run_in_double("test_daformer", "check_maps_in_double")


def check_maps_in_double():
    goldens = json.loads(GOLDENS.read_text())
    shapes = daformer_shapes("mit_b0")
    model, *trees, _ = published("daformer", "mit_b0", shapes, compute_dtype="float64")
    trees = in_double(trees)
    evaluate = jax.jit(lambda x: model.forward(*trees, x, train=False)[0])
    odd = evaluate(in_double(image(1, 70, 101))).features
    assert odd[0].dtype == np.float64
    # Of the first map's third value, -0.06, PyTorch's own is up to 1.4e-4 away; the
    # third map ends with -0.00012 and has values of size 1.
    even = evaluate(in_double(image(2, 64, 96))).features
    for maps, recorded, near_zero in (
        (odd, goldens["mit_b0_feats_odd"], {0: ("first",)}),
        (even, goldens["mit_b0_feats"], {0: ("first",), 2: ("last",)}),
    ):
        for i, (mine, golden) in enumerate(zip(maps, recorded, strict=True)):
            assert_recorded(mine, golden, near_zero=near_zero.get(i, ()))


def test_daformer_equals_the_original(goldens, predictions, daformer):
    _, params, stats, _ = daformer
    prediction = predictions["daformer"]
    assert prediction.aux_logits == () and prediction.logits.dtype == jnp.float32
    assert_recorded(prediction.logits, goldens["daformer_b0_encode_decode"])
    found = np.bincount(prediction.logits.argmax(-1).ravel(), minlength=19)
    assert found.tolist() == goldens["daformer_b0_argmax_hist"]
    low = DAFormerHead(19, 256, **HEAD, remat=False).apply(
        {"params": params["decode_head"], "batch_stats": stats["decode_head"]},
        prediction.features,
    )
    assert_recorded(low, goldens["daformer_b0_logits_os4"])


def test_sliding_equals_the_original(goldens, daformer):
    """Windows of 64 pixels every 32 over 80 x 112, scored at 130 x 200."""
    options = inference_options(
        "sliding", (64, 64), (32, 32), resize="logits", align_corners=False
    )
    look = jax.jit(
        lambda x: probabilities(
            lambda part: daformer[3](part).logits,
            x, per_pass=3, output_size=(130, 200), **options,
        )
    )  # fmt: skip
    with mock.patch("uda_jax.inference.normalize", lambda x: x):
        probs = look(image(1, 80, 112))
    golden = goldens["slide_inference_probs"]
    assert_recorded(probs, golden)
    # What is averaged and how it is resized moves this by 1e-5 of itself.
    assert np.std(np.float64(probs)) == pytest.approx(golden["std"], rel=2e-6)


def test_segformer_equals_the_original(goldens, predictions, segformer):
    _, params, stats, _ = segformer
    prediction = predictions["segformer"]
    low = SegFormerHead(19, 768, **HEAD).apply(
        {"params": params["decode_head"], "batch_stats": stats["decode_head"]},
        prediction.features,
    )
    assert_recorded(low, goldens["segformer_b1_logits"])
    np.testing.assert_allclose(
        prediction.logits,
        resize_bilinear(low, (64, 96), align_corners=False),
        atol=1e-5,
    )


# --- counts and names of the full-size networks ---------------------------------------


def count(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


@lru_cache
def full_size(backbone):
    return jax.eval_shape(
        create_model("daformer", 19, backbone=backbone).init, jax.random.key(0)
    )[0]


@pytest.mark.parametrize(
    "backbone, total",
    [
        ("mit_b0", 6_900_595),
        ("mit_b1", 16_863_699),
        ("mit_b2", 27_908_563),
        ("mit_b3", 47_784_403),
        ("mit_b4", 64_554_963),
        ("mit_b5", 85_155_283),
    ],
)
def test_every_variant_has_the_published_parameters(backbone, total):
    params = full_size(backbone)
    _, _, leaves, encoder = VARIANTS[backbone]
    assert count(params) == total
    assert count(params["backbone"]) == encoder
    assert len(jax.tree.leaves(params["backbone"])) == leaves
    if backbone != "mit_b0":
        assert count(params["decode_head"]) == 3_712_275


def test_segformer_has_the_published_parameters(segformer):
    # B1's maps have as many channels as B5's, for which the number is published.
    assert count(segformer[1]["decode_head"]) == 84_610_406 - VARIANTS["mit_b5"][3]


def test_parameter_groups_of_the_published_optimizer():
    """34 tensors of the head, 322 of norms without decay and 730 others, in B5."""
    model, params = create_model("daformer", 19), full_size("mit_b5")
    paths = [
        jax.tree_util.keystr(path, simple=True, separator="/")
        for path, _ in jax.tree_util.tree_leaves_with_path(params)
    ]
    heads = [path for path in paths if path.startswith(model.heads)]
    rest = [path for path in paths if path.startswith(model.backbone)]
    norms = [path for path in rest if "norm" in path]
    assert len(heads) + len(rest) == len(paths)
    assert [len(heads), len(norms), len(rest) - len(norms)] == [34, 322, 730]


@pytest.mark.parametrize("name", ("daformer", "segformer"))
def test_torch_names_come_back(request, name):
    model, params, stats, _ = request.getfixturevalue(name)
    shapes = {
        "daformer": daformer_shapes("mit_b0"),
        "segformer": segformer_shapes("mit_b1", 768),
    }[name]
    back = convert.to_torch(params, stats, model.torch.to_torch)
    wanted = tensors(shapes)
    assert back.keys() == wanted.keys()
    for key, tensor in wanted.items():
        np.testing.assert_array_equal(back[key], tensor, err_msg=key)


def test_initial_values_follow_the_rules():
    made = {
        name: create_model(name, 19, backbone="mit_b0", **options).init(
            jax.random.key(3)
        )[0]
        for name, options in (("daformer", {}), ("segformer", {"channels": 256}))
    }

    def leaf(name, path):
        return reduce(lambda node, part: node[part], path.split("/"), made[name])

    def deviation(path, name="daformer"):
        return np.std(leaf(name, path + "/kernel"))

    close = lambda value: pytest.approx(value, rel=0.05)
    block = "backbone/block4_0"
    # Cut at two deviations, which leaves 0.88 of one.
    assert deviation(f"{block}/attn/q") == close(0.02 * 0.8796)
    assert deviation(f"{block}/mlp/dwconv") == close((2 / 9) ** 0.5)
    assert deviation("backbone/patch_embed4/proj") == close((2 / (9 * 256)) ** 0.5)
    assert np.all(leaf("daformer", f"{block}/norm1/scale") == 1)
    assert np.all(leaf("daformer", f"{block}/attn/q/bias") == 0)
    fuse = "decode_head/fuse_layer"
    assert deviation(f"{fuse}/bottleneck/conv") == close((2 / (9 * 256)) ** 0.5)
    depthwise = f"{fuse}/aspp_modules_1/depthwise_conv/conv"
    assert deviation(depthwise) == close((2 / (9 * 1024)) ** 0.5)
    assert deviation("decode_head/conv_seg") == close(0.01)
    for name, path, inputs in (
        ("daformer", "decode_head/embed_layers_3/proj", 256),
        ("segformer", "decode_head/linear_c_3/proj", 256),
        ("segformer", "decode_head/linear_pred", 256),
    ):
        for last in ("kernel", "bias"):
            value = np.abs(leaf(name, f"{path}/{last}"))
            assert 0.8 * inputs**-0.5 < value.max() <= inputs**-0.5


# --- training -------------------------------------------------------------------------


@pytest.fixture(scope="module", autouse=True)
def one_block_in_each_stage():
    """Half of B0: what is compiled with gradients takes its time by the block."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(mit.VARIANTS, "half_b0", ((32, 64, 160, 256), (1, 1, 1, 1)))
        patch.setitem(mit.VARIANTS, "one_block", ((32, 64, 160, 256), (0, 0, 0, 1)))
        yield


def small(name, backbone="half_b0", **options):
    """An eighth of the channels, with initial values."""
    model = create_model(name, 3, backbone=backbone, width=0.125, **options)
    return model, *model.init(jax.random.key(0))


def train_step(model):
    """(params, stats, image, rngs) -> (gradients, (prediction, new statistics))."""

    def loss(params, stats, x, rngs):
        out, new = model.forward(params, stats, x, train=True, rngs=rngs)
        return jnp.mean(jax.nn.softmax(50 * out.logits)[..., 0]), (out, new)

    return jax.jit(jax.grad(loss, has_aux=True))


# The first stage has 2x2 keys: with one, its queries would have no gradient.
X = jax.random.normal(jax.random.key(1), (3, 64, 64, 3))


@pytest.fixture(scope="module")
def training(one_block_in_each_stage):
    """A small DAFormer and its step."""
    model, params, stats = small("daformer")
    return train_step(model), params, stats


def assert_gradients(grads, without=()):
    for path, gradient in jax.tree_util.tree_leaves_with_path(jax.device_get(grads)):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        assert gradient.dtype == jnp.float32 and np.all(np.isfinite(gradient)), name
        assert np.any(gradient != 0) != name.startswith(tuple(without)), name


def test_training_reaches_every_parameter_and_statistic(training):
    step, params, stats = training
    # Numpy compares without compiling a program for each shape.
    grads, (prediction, new) = jax.device_get(step(params, stats, X, DROPOUT))
    assert prediction.logits.dtype == jnp.float32
    assert_gradients(grads)
    for path, moved in jax.tree_util.tree_leaves_with_path(
        jax.tree.map(lambda a, b: bool(np.all(a != b)), jax.device_get(stats), new)
    ):
        assert moved, path


@pytest.mark.parametrize(
    "name, options, without",
    [
        ("daformer", {"remat": True}, ()),
        # The classifier that the original has and never uses.
        ("segformer", {"channels": 256}, ("decode_head/conv_seg/",)),
    ],
)
def test_frozen_statistics_stay_and_the_rest_learns(name, options, without):
    """All parameters; the other blocks' are in the test with the batch's statistics."""
    model, params, stats = small(name, "one_block", batch_norm="frozen", **options)
    step = train_step(model)
    grads, (_, new) = jax.device_get(step(params, stats, X, DROPOUT))
    assert_gradients(grads, without)
    jax.tree.map(np.testing.assert_array_equal, new, stats)


def test_bfloat16_stays_close(daformer, predictions):
    model = create_model("daformer", 19, backbone="mit_b0", compute_dtype="bfloat16")
    _, params, stats, _ = daformer
    narrow = jax.jit(lambda x: model.forward(params, stats, x, train=False)[0])
    mine, wide = jax.device_get((narrow(image(2, 64, 96)), predictions["daformer"]))
    assert mine.logits.dtype == jnp.float32
    assert 0 < np.std(mine.logits - wide.logits) < 0.01 * np.std(wide.logits)
    for a, b in zip(mine.features, wide.features, strict=True):
        assert a.dtype == jnp.bfloat16
        # These weights magnify: rounding nothing but the image already moves the first
        # map by 0.042 of its deviation.
        assert np.std(a.astype(jnp.float32) - b) < 0.05 * np.std(b)


def test_dropout_follows_its_key_and_needs_one(training):
    step, params, stats = training
    logits = [
        step(params, stats, X, {"dropout": jax.random.key(seed)})[1][0].logits
        for seed in (7, 7, 8)
    ]
    np.testing.assert_array_equal(logits[0], logits[1])
    assert not np.allclose(logits[0], logits[2], atol=1e-3)
    model, *_ = small("daformer")
    for rngs in (None, {}, {"params": jax.random.key(0)}):
        with pytest.raises(UserError, match=r'rngs=\{"dropout": key\}'):
            model.forward(params, stats, X, train=True, rngs=rngs)
    # Without anything random BatchNorm's training mode needs no key.
    calm, *_ = small("daformer", dropout=0.0, drop_path=0.0)
    _, new = jax.eval_shape(lambda: calm.forward(params, stats, X, train=True))
    assert jax.tree.structure(new) == jax.tree.structure(stats)


def test_dropout_takes_whole_channels():
    """Each channel of an example is 0 or divided by 0.75, at every pixel."""
    options = {**HEAD, "train": True, "dropout": 0.25}
    head = DAFormerHead(256, 256, **options, remat=False)
    maps = [jnp.ones((2, n, n, 4)) for n in (8, 4, 2, 1)]
    shapes = jax.eval_shape(head.init, jax.random.key(0), maps)
    params, stats = (
        jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), shapes[part])
        for part in ("params", "batch_stats")
    )
    # The bottleneck gives 3 everywhere and the classifier passes it on.
    params["fuse_layer"]["bottleneck"]["bn"]["bias"] += 3
    params["conv_seg"]["kernel"] += np.eye(256)
    logits = head.apply({"params": params, "batch_stats": stats}, maps, rngs=DROPOUT)
    np.testing.assert_array_equal(logits, logits[:, :1, :1] * jnp.ones_like(logits))
    kept = np.asarray(logits[:, 0, 0])
    np.testing.assert_allclose(np.unique(kept), [0, 4], atol=1e-5)
    assert np.mean(kept == 0) == pytest.approx(0.25, abs=0.06)
    assert np.any(kept[0] != kept[1])


def test_recomputed_branches_are_the_same_and_keep_less():
    """Values, running statistics and gradients, and how many numbers wait for them."""
    x = np.random.default_rng(0).normal(size=(2, 8, 8, 16)).astype(np.float32)
    make = partial(SeparableASPP, 4, use_running=False, dtype=jnp.float32)
    trees = make(remat=False).init(jax.random.key(0), x)

    def look(remat):
        """(loss, statistics and gradients; size of what the backward pass needs)."""

        def loss(params):
            tree = {**trees, "params": params}
            y, new = make(remat=remat).apply(tree, x, mutable=["batch_stats"])
            return jnp.mean(y**2), new

        value = jax.jit(jax.value_and_grad(loss, has_aux=True))(trees["params"])
        waiting = jax.eval_shape(lambda p: jax.vjp(loss, p)[1:], trees["params"])
        return value, sum(leaf.size for leaf in jax.tree.leaves(waiting))

    plain, kept = look(remat=False)
    again, kept_with_remat = look(remat=True)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7),
        again,
        plain,
    )
    assert kept_with_remat < kept / 2


# --- sizes and options ----------------------------------------------------------------


def test_the_smallest_image():
    """29x29; test_models.py has an odd size for every network."""
    model, *trees = small("daformer")
    prediction, _ = jax.eval_shape(
        lambda x: model.forward(*trees, x, train=False),
        jax.ShapeDtypeStruct((2, 29, 29, 3), jnp.float32),
    )
    assert prediction.logits.shape == (2, 29, 29, 3)
    assert len(prediction.features) == 4


@pytest.mark.parametrize(("width", "wanted"), [(1.0, 64), (0.5, 32)])
def test_a_decoder_of_fewer_channels(width, wanted):
    model = create_model("daformer", 5, backbone="mit_b0", channels=64, width=width)
    head = jax.eval_shape(model.init, jax.random.key(0))[0]["decode_head"]
    assert head["embed_layers_0"]["proj"]["kernel"].shape == (32 * width, wanted)
    assert head["fuse_layer"]["bottleneck"]["conv"]["kernel"].shape[2:] == (
        4 * wanted,
        wanted,
    )
    assert head["conv_seg"]["kernel"].shape == (1, 1, wanted, 5)


@pytest.mark.parametrize(
    "name, options, message",
    [
        ("daformer", {"backbone": "mit_b6"}, r"mit_b5.*mit_b0, mit_b1"),
        ("daformer", {"batch_norm": "eval"}, "frozen"),
        ("daformer", {"compute_dtype": "float16"}, "bfloat16"),
        ("daformer", {"width": 0.0}, "above 0"),
        ("daformer", {"drop_path": 1.0}, "below 1"),
        ("daformer", {"dropout": -0.1}, "from 0"),
        ("daformer", {"channels": 0}, "at least 1"),
        ("daformer", {"chanels": 64}, 'no option "chanels"'),
        ("segformer", {"channels": 512}, "256, 768"),
        ("segfromer", {}, 'did you mean "segformer"'),
    ],
)
def test_wrong_options_are_explained(name, options, message):
    with pytest.raises(UserError, match=message):
        create_model(name, 5, **options)
