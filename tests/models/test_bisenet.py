"""BiSeNet: parity with both published networks, training behaviour, any input size."""

from functools import partial
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from uda_jax import convert
from uda_jax.errors import UserError
from uda_jax.models import bisenet, create_model, resnet
from uda_jax.models.initialize import init_from_shapes
from uda_jax.models.layers import BatchNorm, Conv, LayerKit

GOLDENS = Path(__file__).parent.parent / "goldens"
CLASSES = {"tufl": 13, "ss_ada": 7}
PREFIX = {"tufl": "tufl", "ss_ada": "ssada"}
KIT = LayerKit(Conv, partial(BatchNorm, False), jax.nn.relu)


@pytest.fixture(scope="module")
def goldens():
    with np.load(GOLDENS / "tufl_ssada.npz") as file:
        return {k: file[k] for k in file.files if k.startswith("model/")}


def published_tensors(form):
    """The closed-form weights with which the goldens were made."""
    text = (GOLDENS / f"{PREFIX[form]}_bisenet_keys.txt").read_text()
    tensors = {}
    for t, line in enumerate(text.splitlines()):
        name, shape = line.split("\t")
        shape = tuple(int(n) for n in shape.strip("()").split(",") if n.strip())
        if name.endswith("num_batches_tracked"):
            tensors[name] = np.zeros((), np.int64)
            continue
        d = np.sin(0.5 * np.arange(np.prod(shape)) + t).reshape(shape)
        if len(shape) == 4:
            d = d * np.sqrt(2 / np.prod(shape[1:]))
        elif name.endswith("running_mean") or name.endswith("bias"):
            d = 0.1 * d
        elif name.endswith("running_var"):
            d = 1 + 0.2 * np.abs(d)
        else:
            d = (1 + 0.1 * d) * (-1 if t % 7 == 0 else 1)
        tensors[name] = d.astype(np.float32)
    return tensors


@pytest.fixture(scope="module")
def networks():
    """form -> (model, params, batch_stats) with the goldens' weights."""
    made = {}
    for form, num_classes in CLASSES.items():
        model = create_model("bisenet", num_classes, form=form)
        shapes = jax.eval_shape(model.init, jax.random.key(0))
        made[form] = (
            model,
            *convert.from_torch(published_tensors(form), model.torch.to_flax, *shapes),
        )
    return made


def assert_close(mine, golden):
    """Largest difference within 1e-5 of the golden's largest value; NCHW -> NHWC."""
    golden = golden.transpose(0, 2, 3, 1)
    assert mine.shape == golden.shape and mine.dtype == jnp.float32
    assert np.abs(mine - golden).max() <= 1e-5 * np.abs(golden).max()


@pytest.mark.parametrize(
    "form, size", [("tufl", (64, 96)), ("ss_ada", (64, 96)), ("ss_ada", (56, 88))]
)
def test_forward_equals_the_published_network(goldens, networks, form, size):
    model, params, stats = networks[form]
    # The closed form of the goldens' inputs; at 64x96 it is "model/x".
    i = np.arange(3 * size[0] * size[1])
    image = 2 * np.sin(0.19 * i + 0.4) * np.cos(0.013 * i)
    image = image.astype(np.float32).reshape(1, 3, *size)
    if size == (64, 96):
        np.testing.assert_allclose(image, goldens["model/x"], atol=1e-5)
    image = image.transpose(0, 2, 3, 1)
    forward = jax.jit(lambda p, s, x: model.forward(p, s, x, train=False))
    prediction, new_stats = forward(params, stats, image)
    key = f"model/{PREFIX[form]}" + ("" if size == (64, 96) else "_56x88")
    assert_close(prediction.logits, goldens[f"{key}_out"])
    assert_close(prediction.aux_logits[0], goldens[f"{key}_out16"])
    assert_close(prediction.aux_logits[1], goldens[f"{key}_out32"])
    jax.tree.map(np.testing.assert_array_equal, new_stats, stats)


@pytest.mark.parametrize("form, count", [("tufl", 13_390_080), ("ss_ada", 13_421_077)])
def test_number_of_parameters(networks, form, count):
    _, params, _ = networks[form]
    assert sum(x.size for x in jax.tree.leaves(params)) == count


@pytest.mark.parametrize("form", bisenet.FORMS)
def test_torch_names_come_back(networks, form):
    model, params, stats = networks[form]
    tensors = convert.to_torch(params, stats, model.torch.to_torch)
    published = {
        k: v
        for k, v in published_tensors(form).items()
        if not k.endswith("num_batches_tracked")
    }
    assert tensors.keys() == published.keys()
    for name, tensor in published.items():
        np.testing.assert_array_equal(tensors[name], tensor)


def test_conversion_names_both_sides(networks):
    model, params, stats = networks["tufl"]
    tensors = published_tensors("tufl")
    tensors["cp.extra.weight"] = tensors.pop("sp.conv1.bn.weight")
    tensors["conv_out.conv_out.weight"] = np.zeros((19, 256, 1, 1), np.float32)
    tensors["ffm.conv1.weight"] = tensors["ffm.conv1.weight"].astype(np.float64)
    with pytest.raises(UserError) as error:
        convert.from_torch(tensors, model.torch.to_flax, params, stats)
    for part in (
        "cp.extra.weight",
        "params/sp/conv1/bn/scale",
        "conv_out.conv_out.weight (19, 256, 1, 1)",
        "ffm.conv1.weight is float64",
    ):
        assert part in str(error.value)


def test_initial_values_follow_the_key_and_the_rule():
    # Half the width: a quarter of the numbers to draw.
    model = create_model("bisenet", 5, width=0.5)
    params, stats = model.init(jax.random.key(3))
    again, _ = model.init(jax.random.key(3))
    jax.tree.map(np.testing.assert_array_equal, params, again)
    stem = params["cp"]["resnet"]["conv1"]["kernel"]
    assert np.std(stem) == pytest.approx((2 / (49 * 32)) ** 0.5, rel=0.05)
    head = params["conv_out"]["conv"]["conv"]["kernel"]
    assert np.std(head) == pytest.approx((9 * 128) ** -0.5, rel=0.05)
    assert np.all(params["ffm"]["convblk"]["bn"]["scale"] == 1)
    assert np.all(stats["sp"]["conv1"]["bn"]["var"] == 1)
    other, _ = model.init(jax.random.key(4))
    assert not np.array_equal(other["cp"]["resnet"]["conv1"]["kernel"], stem)


@pytest.mark.parametrize("form", bisenet.FORMS)
@pytest.mark.parametrize("size", [(1, 1), (33, 47), (100, 72)])
def test_logits_have_the_size_of_the_input(networks, form, size):
    model, *trees = networks[form]
    for train in (True, False):
        prediction, stats = jax.eval_shape(
            lambda p, s, x, train=train: model.forward(p, s, x, train=train),
            *trees,
            jax.ShapeDtypeStruct((2, *size, 3), jnp.float32),
        )
        logits = (prediction.logits, *prediction.aux_logits)
        assert [z.shape for z in logits] == [(2, *size, CLASSES[form])] * 3
        assert jax.tree.structure(stats) == jax.tree.structure(trees[1])


def test_auxiliary_heads_are_optional():
    model = create_model("bisenet", 5, aux_heads=False)
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    assert "conv_out16" not in shapes[0]
    prediction, _ = jax.eval_shape(
        lambda p, s: model.forward(p, s, jnp.zeros((2, 32, 32, 3)), train=False),
        *shapes,
    )
    assert prediction.aux_logits == ()


def test_training_updates_statistics_and_reaches_every_parameter(monkeypatch):
    # Two blocks in one stage only: gradients take time to compile by the block.
    monkeypatch.setitem(resnet.BLOCKS, "resnet18", (1, 1, 1, 2))
    model = create_model("bisenet", 3, width=0.25, compute_dtype="bfloat16", remat=True)
    params, stats = model.init(jax.random.key(0))
    image = jax.random.normal(jax.random.key(1), (2, 40, 48, 3))

    @jax.jit
    def gradients(params, stats, image):
        def loss(params):
            out, new = model.forward(params, stats, image, train=True)
            heads = (out.logits, *out.aux_logits)
            return sum(jnp.mean(jax.nn.softmax(z)[..., 0]) for z in heads), (new, heads)

        return jax.grad(loss, has_aux=True)(params)

    grads, (new, heads) = gradients(params, stats, image)
    assert all(z.dtype == jnp.float32 for z in heads)
    for path, g in jax.tree_util.tree_leaves_with_path(grads):
        assert g.dtype == jnp.float32 and np.all(np.isfinite(g)), path
        assert np.any(g != 0), path
    for path, changed in jax.tree_util.tree_leaves_with_path(
        jax.tree.map(lambda a, b: bool(np.any(a != b)), stats, new)
    ):
        assert changed, path


def test_frozen_statistics_stay_in_training(networks):
    frozen = create_model("bisenet", 13, batch_norm="frozen")
    _, params, stats = networks["tufl"]
    image = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    programs = [
        str(
            jax.make_jaxpr(lambda x, t=t: frozen.forward(params, stats, x, train=t))(
                image
            )
        )
        for t in (True, False)
    ]
    assert programs[0] == programs[1]
    _, new = jax.eval_shape(
        lambda x: frozen.forward(params, stats, x, train=True), image
    )
    assert jax.tree.structure(new) == jax.tree.structure(stats)


def test_rematerialised_block_has_the_same_gradient():
    x = jax.random.normal(jax.random.key(0), (2, 8, 8, 4))
    weight = jax.random.normal(jax.random.key(1), (2, 4, 4, 8))
    block = resnet.BasicBlock(8, 2, KIT)
    shapes = jax.eval_shape(block.init, jax.random.key(0), x)
    params, stats = init_from_shapes(
        jax.random.key(0),
        shapes["params"],
        shapes["batch_stats"],
        lambda path, *_: ("normal", 0.1) if path.endswith("kernel") else None,
    )

    def run(kind):
        def loss(params):
            y, new = kind(8, 2, KIT).apply(
                {"params": params, "batch_stats": stats}, x, mutable=["batch_stats"]
            )
            return jnp.sum(weight * y), new

        return jax.jit(jax.grad(loss, has_aux=True))(params)

    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4),
        run(resnet.BasicBlock),
        run(nn.remat(resnet.BasicBlock)),
    )


@pytest.mark.parametrize(
    "options, message",
    [
        ({"form": "tuffl"}, 'did you mean "tufl"'),
        ({"backbone": "resnet50"}, "resnet18"),
        ({"batch_norm": "eval"}, "frozen"),
        ({"compute_dtype": "float16"}, "bfloat16"),
        ({"aux_head": True}, 'did you mean "aux_heads"'),
    ],
)
def test_wrong_options_are_explained(options, message):
    with pytest.raises(UserError, match=message):
        create_model("bisenet", 5, **options)


def test_unknown_network_is_explained():
    with pytest.raises(UserError, match='did you mean "bisenet"'):
        create_model("bisnet", 5)
