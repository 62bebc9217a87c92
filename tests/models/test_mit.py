"""Mix Transformer: the six variants, stochastic depth, norms, Hugging Face's names."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from published_mit import encoder_shapes, segformer_shapes, tensors

from uda_jax import convert
from uda_jax.errors import UserError
from uda_jax.models import create_model, mit, segformer


def build(variant="mit_b0", **options):
    options = {"width": 1.0, "drop_path": 0.1, "train": False, **options}
    return mit.MiT(variant, dtype=jnp.float32, remat=False, **options)


def shapes(network, size=(64, 64)):
    image = jax.ShapeDtypeStruct((1, *size, 3), jnp.float32)
    return jax.eval_shape(network.init, jax.random.key(0), image)["params"]


def recorded(network, field):
    """Values of a field of all its modules that have it, in the order of calls."""
    found = []

    def record(call, args, kwargs, context):
        if hasattr(context.module, field) and context.method_name == "__call__":
            found.append(getattr(context.module, field))
        return call(*args, **kwargs)

    with nn.intercept_methods(record):
        shapes(network)
    return found


def test_both_eps_of_the_original():
    eps = recorded(build(), "epsilon")
    assert (eps.count(1e-5), eps.count(1e-6), len(eps)) == (10, 20, 30)


def test_drop_path_grows_over_all_blocks():
    rates = recorded(build(), "drop_path")[1:]  # the first is the network's own
    np.testing.assert_allclose(rates, np.arange(8) / 70, atol=1e-12)
    assert recorded(build("mit_b2"), "drop_path")[-1] == 0.1
    assert set(recorded(build(drop_path=0.0), "drop_path")) == {0.0}


def branches_of_ones_and_tens(params):
    """Parameters with which attention gives 1 and the MLP 10, whatever comes in."""
    params = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), params)
    params["attn"]["proj"]["bias"] += 1
    params["mlp"]["fc2"]["bias"] += 10
    return params


@pytest.mark.parametrize("rate, train", [(0.0, True), (0.2, False), (0.2, True)])
def test_drop_path_is_per_example_and_keeps_the_mean(rate, train):
    block = mit.Block(1, 1, rate, train, jnp.float32)
    x = jax.random.normal(jax.random.key(0), (4096, 2, 1, 2))
    params = jax.eval_shape(block.init, jax.random.key(0), x[:1])["params"]
    params = branches_of_ones_and_tens(params)
    rngs = {"dropout": jax.random.key(1)} if train and rate else None
    added = jax.device_get(block.apply({"params": params}, x, rngs=rngs) - x)
    # All pixels and channels of an example share their fate.
    np.testing.assert_allclose(added - added[:, :1, :1, :1], 0, atol=1e-4)
    values, counts = np.unique(np.round(added[:, 0, 0, 0], 2), return_counts=True)
    if rate == 0 or not train:
        assert values.tolist() == [11]
        return
    # Two independent draws with probability 0.8, each kept branch divided by 0.8.
    np.testing.assert_allclose(values, [0, 1.25, 12.5, 13.75], atol=1e-2)
    np.testing.assert_allclose(counts / 4096, [0.04, 0.16, 0.16, 0.64], atol=0.02)
    assert np.mean(added) == pytest.approx(11, rel=0.02)


def test_other_forms_of_a_block_draw_the_same_numbers():
    x = jax.random.normal(jax.random.key(0), (4, 6, 8, 8))
    rngs = {"dropout": jax.random.key(2)}
    options = {"heads": 2, "reduction": 2, "drop_path": 0.4, "train": True}
    block = mit.Block(**options, dtype=jnp.float32)
    params = jax.eval_shape(block.init, jax.random.key(0), x)["params"]
    rng = np.random.default_rng(1)
    params = jax.tree.map(lambda p: 0.3 * rng.normal(size=p.shape), params)

    def run(kind, dtype):
        def loss(params):
            block = kind(**options, dtype=dtype, name="block3_1")
            y = block.apply({"params": params}, x.astype(dtype), rngs=rngs)
            return jnp.mean(y.astype(jnp.float32) ** 2)

        value = jax.jit(jax.value_and_grad(loss))(params)
        return jax.tree.leaves(jax.device_get(value))

    wanted = run(mit.Block, jnp.float32)
    for kind, dtype, tolerance in (
        (nn.remat(mit.Block), jnp.float32, 1e-5),
        (mit.Block, jnp.bfloat16, 0.03),
    ):
        for a, b in zip(run(kind, dtype), wanted, strict=True):
            assert a.dtype == jnp.float32
            assert np.abs(a - b).max() <= tolerance * np.abs(b).max()


@pytest.mark.parametrize("size", [(29, 29), (29, 61), (70, 101), (540, 64)])
def test_maps_of_any_size(size):
    network = build(width=0.125)
    image = jax.ShapeDtypeStruct((2, *size, 3), jnp.float32)
    maps = jax.eval_shape(network.apply, {"params": shapes(network)}, image)
    wanted = [tuple(-(-n // s) for n in size) for s in (4, 8, 16, 32)]
    assert [m.shape[1:3] for m in maps] == wanted


def test_too_small_an_image_is_explained():
    network = build(width=0.125)
    with pytest.raises(UserError, match=r"28x64 is too small.*at least 29x29"):
        shapes(network, (28, 64))


@pytest.mark.parametrize(
    "width, channels", [(1, [32, 64, 160, 256]), (0.5, [16, 32, 80, 128])]
)
def test_width_scales_the_channels_of_a_head(width, channels):
    params = shapes(build(width=width))
    norms = [params[f"norm{s}"]["scale"].size for s in (1, 2, 3, 4)]
    assert norms == channels
    assert shapes(build(width=0.001))["norm3"]["scale"].size == 5  # one for each head


def test_reduced_attention_by_hand():
    """One head, 2x2 windows of a 4x5 map: the fifth column has no key."""
    block = mit.Attention(1, 2, jnp.float32)
    x = np.random.default_rng(0).normal(size=(1, 4, 5, 4)).astype(np.float32)
    params = jax.eval_shape(block.init, jax.random.key(0), x)["params"]
    rng = np.random.default_rng(1)
    p = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype("f4"), params)

    def linear(x, name):
        return x @ p[name]["kernel"] + p[name]["bias"]

    windows = x[0, :, :4].reshape(2, 2, 2, 2, 4)
    few = np.einsum("yaxbc,abcd->yxd", windows, p["sr"]["kernel"]) + p["sr"]["bias"]
    few = few.reshape(4, 4)
    few = few - few.mean(-1, keepdims=True)
    few = few / np.sqrt((few**2).mean(-1, keepdims=True) + 1e-5)
    few = few * p["norm"]["scale"] + p["norm"]["bias"]
    k, v = np.split(linear(few, "kv"), 2, axis=-1)
    weights = np.exp(linear(x.reshape(20, 4), "q") @ k.T / 2)
    y = weights / weights.sum(-1, keepdims=True) @ v
    np.testing.assert_allclose(
        block.apply({"params": p}, x).reshape(20, 4),
        linear(y, "proj"),
        rtol=1e-4,
        atol=1e-4,
    )


# --- Hugging Face's names -------------------------------------------------------------

BLOCK = {  # the original's layer -> Hugging Face's
    "norm1": "layer_norm_1",
    "attn.q": "attention.self.query",
    "attn.sr": "attention.self.sr",
    "attn.norm": "attention.self.layer_norm",
    "attn.proj": "attention.output.dense",
    "norm2": "layer_norm_2",
    "mlp.fc1": "mlp.dense1",
    "mlp.dwconv.dwconv": "mlp.dwconv.dwconv",
    "mlp.fc2": "mlp.dense2",
}
DECODER = {
    "linear_fuse.conv": "linear_fuse",
    "linear_fuse.bn": "batch_norm",
    "linear_pred": "classifier",
}


def hugging_face(original, prefix="segformer.encoder."):
    """An encoder as Hugging Face saves it."""
    renamed = {}
    for name, tensor in original.items():
        first, *rest, last = name.split(".")
        stage = int(first[-1]) - 1
        if first.startswith("norm"):
            renamed[f"{prefix}layer_norm.{stage}.{last}"] = tensor
        elif first.startswith("patch_embed"):
            part = rest[0].replace("norm", "layer_norm")
            renamed[f"{prefix}patch_embeddings.{stage}.{part}.{last}"] = tensor
        else:
            block, kind = f"{prefix}block.{stage}.{rest[0]}", ".".join(rest[1:])
            if kind == "attn.kv":
                key, value = np.split(tensor, 2)
                renamed[f"{block}.attention.self.key.{last}"] = key
                renamed[f"{block}.attention.self.value.{last}"] = value
            else:
                renamed[f"{block}.{BLOCK[kind]}.{last}"] = tensor
    return renamed


@pytest.fixture(scope="module")
def encoder():
    return tensors(encoder_shapes("mit_b0"))


def assert_same(mine, wanted):
    assert mine.keys() == wanted.keys()
    for name, tensor in wanted.items():
        np.testing.assert_array_equal(mine[name], tensor, err_msg=name)


@pytest.mark.parametrize("prefix", ("segformer.encoder.", "encoder."))
def test_hugging_face_encoder(encoder, prefix):
    theirs = hugging_face(encoder, prefix)
    assert f"{prefix}block.3.1.attention.self.value.bias" in theirs
    assert f"{prefix}patch_embeddings.0.layer_norm.weight" in theirs
    assert mit.is_hugging_face(theirs) and not mit.is_hugging_face(encoder)
    head = np.zeros((1000, 256), np.float32)
    mine = mit.from_hugging_face({**theirs, "classifier.weight": head})
    np.testing.assert_array_equal(mine.pop("head.weight"), head)
    assert_same(mine, encoder)


def test_hugging_face_segformer(encoder):
    shapes_256 = segformer_shapes("mit_b0", 256, num_classes=5)
    wanted = tensors(shapes_256)
    for name in ("weight", "bias"):
        wanted[f"decode_head.conv_seg.{name}"] *= 0
    theirs = hugging_face(encoder)
    wanted |= {f"backbone.{k}": v for k, v in encoder.items()}
    for name, tensor in wanted.items():
        if name.startswith("decode_head.") and "conv_seg" not in name:
            layer, last = name.removeprefix("decode_head.").rsplit(".", 1)
            if layer == "linear_fuse.conv":  # from coarse to fine
                tensor = np.concatenate(
                    [tensor[:, 256 * i :][:, :256] for i in (3, 2, 1, 0)], 1
                )
            theirs[f"decode_head.{DECODER.get(layer, layer)}.{last}"] = tensor
    mine = segformer.from_hugging_face(theirs)
    assert_same(mine, wanted)
    model = create_model("segformer", 5, backbone="mit_b0", channels=256)
    wanted_leaves = jax.eval_shape(model.init, jax.random.key(0))
    convert.from_torch(mine, model.torch.to_flax, *wanted_leaves)  # strict

    del theirs["decode_head.linear_fuse.weight"]
    with pytest.raises(UserError, match=r"linear_fuse\.conv\.weight"):
        segformer.from_hugging_face(theirs)


@pytest.mark.parametrize("part, other", [("key", "value"), ("value", "key")])
def test_a_key_without_its_value_is_named(encoder, part, other):
    theirs = hugging_face(encoder)
    name = f"segformer.encoder.block.1.0.attention.self.{part}.weight"
    theirs[name] = theirs[name][:5]
    with pytest.raises(UserError, match=rf"block\.1\.0\..*{part}"):
        mit.from_hugging_face(theirs)
    del theirs[name]
    with pytest.raises(
        UserError, match=rf"{other}.*no .*block\.1\.0\..*{part}\.weight"
    ):
        mit.from_hugging_face(theirs)
