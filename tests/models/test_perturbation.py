"""Feature perturbation: what is dropped, and that the clean logits do not notice."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from uda_jax.errors import UserError
from uda_jax.models import MODELS, create_model, mit, resnet
from uda_jax.models.bisenet import FeatureFusion
from uda_jax.models.daformer import DAFormerHead
from uda_jax.models.deeplabv2 import DilatedClassifier
from uda_jax.models.layers import WithDropped, clean_and_dropped
from uda_jax.models.segformer import SegFormerHead

# name, options, the module that sees clean and dropped features, and for each of its
# inputs whether whole channels are dropped.
NETWORKS = {
    "ss_ada": ("bisenet", {"form": "ss_ada"}, FeatureFusion, (False, True)),
    "tufl": ("bisenet", {"form": "tufl"}, FeatureFusion, (False, True)),
    "deeplabv2": (
        "deeplabv2",
        {"backbone": "resnet18", "multi_level": False},
        DilatedClassifier,
        (True,),
    ),
    "daformer": ("daformer", {"backbone": "mit_b0"}, DAFormerHead, (True,) * 4),
    "segformer": (
        "segformer",
        {"backbone": "mit_b0", "channels": 256},
        SegFormerHead,
        (True,) * 4,
    ),
}
X = jax.random.normal(jax.random.key(1), (2, 32, 64, 3))
KEYS = [{"dropout": jax.random.key(seed)} for seed in (7, 7, 8)]


def run(model, head, params, stats, rngs, *, train, perturb=True):
    """(prediction, new statistics, the inputs of the module `head`)."""
    seen = []

    def spy(call, args, kwargs, context):
        if isinstance(context.module, head) and context.method_name == "__call__":
            seen.extend(jax.tree.leaves(args))
        return call(*args, **kwargs)

    with nn.intercept_methods(spy):
        prediction, new = model.forward(
            params, stats, X, train=train, rngs=rngs, perturb=perturb
        )
    return prediction, new, seen


@pytest.fixture(scope="module", params=NETWORKS)
def network(request):
    """(model, the head's class, how its inputs are dropped, parameters, statistics)."""
    name, options, head, whole = NETWORKS[request.param]
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(resnet.BLOCKS, "resnet18", (1, 1, 1, 1))
        patch.setitem(mit.VARIANTS, "mit_b0", ((32, 64, 160, 256), (0, 0, 0, 1)))
        model = create_model(name, 3, width=0.125, **options)
        params, stats = model.init(jax.random.key(0))
        yield model, head, whole, params, stats


@pytest.fixture(scope="module")
def evaluated(network):
    """Evaluation without a perturbed pass, and with one for each of KEYS."""
    model, head, _, *trees = network
    plain = jax.jit(lambda *trees: model.forward(*trees, X, train=False))
    look = jax.jit(partial(run, model, head, train=False))
    return jax.device_get((plain(*trees), [look(*trees, key) for key in KEYS]))


def assert_dropped(clean, dropped, whole_channels):
    """[B, H, W, C]: 0 or exactly twice the clean value."""
    kept = dropped == 2 * clean
    assert np.all(kept | (dropped == 0))
    kept = kept | (clean == 0)  # after a ReLU zeros say nothing
    by_channel = kept.all((1, 2)) | ((dropped == 0) | (clean == 0)).all((1, 2))
    assert by_channel.all() == whole_channels
    assert np.any(clean != dropped)


@pytest.mark.parametrize("whole_channels", (False, True))
def test_half_is_dropped_and_the_mean_stays(whole_channels):
    x = 1 + jnp.arange(2 * 4 * 3 * 5, dtype=jnp.float32).reshape(2, 4, 3, 5)
    look = jax.jit(
        jax.vmap(
            lambda key: WithDropped(whole_channels).apply({}, x, rngs={"dropout": key})
        )
    )
    both = np.asarray(look(jax.random.split(jax.random.key(0), 2000)))
    assert both.shape == (2000, 4, 4, 3, 5)
    for draw in both[:20]:
        clean, dropped = clean_and_dropped(draw)
        np.testing.assert_array_equal(clean, x)
        assert_dropped(clean, dropped, whole_channels)
        kept = dropped[:, 0, 0] != 0
        if whole_channels:
            assert np.all((dropped != 0) == kept[:, None, None])
    # The mean of 2000 draws of 0 or 2 has a deviation of 0.022.
    dropped = both[:, 1::2]
    np.testing.assert_allclose(dropped.mean(0) / x, 1, atol=0.11)
    # Examples draw apart, and so do channels: all four pairs are as frequent.
    for one, other in (
        (dropped[:, 0, 0, 0, 0], dropped[:, 1, 0, 0, 0]),
        (dropped[:, 0, 0, 0, 0], dropped[:, 0, 0, 0, 1]),
    ):
        pairs = np.bincount(2 * (one > 0) + (other > 0), minlength=4)
        np.testing.assert_allclose(pairs / 2000, 0.25, atol=0.05)


def test_half_is_dropped_in_the_narrow_type():
    x = jax.random.normal(jax.random.key(0), (2, 8, 8, 4)).astype(jnp.bfloat16)
    both = WithDropped(True).apply({}, x, rngs=KEYS[0])
    assert both.dtype == jnp.bfloat16
    assert_dropped(*jax.device_get(clean_and_dropped(both)), whole_channels=True)


def test_the_head_sees_the_features_clean_and_dropped(network, evaluated):
    _, _, whole, *_ = network
    _, (first, *_) = evaluated
    prediction, _, seen = first
    assert len(seen) == len(whole)
    for x, whole_channels in zip(seen, whole, strict=True):
        assert len(x) == 4
        assert_dropped(*clean_and_dropped(x), whole_channels)
    # What the prediction shows are the clean ones.
    for features in prediction.features:
        assert len(features) == 2


def test_clean_logits_do_not_change(evaluated):
    (plain, stats), perturbed = evaluated
    assert plain.perturbed_logits is None
    for prediction, new, _ in perturbed:
        assert prediction.perturbed_logits.shape == (2, 32, 64, 3)
        assert prediction.perturbed_logits.dtype == jnp.float32
        without = prediction._replace(perturbed_logits=None)
        assert jax.tree.structure(without) == jax.tree.structure(plain)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
            without,
            plain,
        )
        jax.tree.map(np.testing.assert_array_equal, new, stats)


def test_perturbed_logits_follow_the_key(evaluated):
    _, perturbed = evaluated
    one, same, other = (prediction for prediction, _, _ in perturbed)
    # Over the pixels of one class: the initial classifiers' biases say nothing.
    scale = np.std(one.logits, axis=(0, 1, 2)).max()
    assert np.abs(one.perturbed_logits - one.logits).max() > 0.1 * scale
    np.testing.assert_array_equal(one.perturbed_logits, same.perturbed_logits)
    assert np.abs(one.perturbed_logits - other.perturbed_logits).max() > 0.1 * scale
    np.testing.assert_allclose(one.logits, other.logits, rtol=1e-4, atol=1e-6)


def test_statistics_of_the_fusion_are_those_of_both():
    """SS-ADA's: the fusion's first BatchNorm is over 2B; the paths' are as before."""
    model = create_model("bisenet", 3, form="ss_ada", width=0.125)
    params, stats = model.init(jax.random.key(0))
    look = partial(run, model, FeatureFusion, params, stats, KEYS[0], train=True)
    (_, plain, _), (_, new, seen) = jax.device_get(
        jax.jit(lambda: (look(perturb=False), look()))()
    )
    kernel = np.asarray(params["ffm"]["convblk"]["conv"]["kernel"])[0, 0]
    mean = (np.concatenate(seen, axis=-1) @ kernel).mean((0, 1, 2))
    np.testing.assert_allclose(
        new["ffm"]["convblk"]["bn"]["mean"], 0.1 * mean, rtol=1e-4, atol=1e-6
    )
    for part, same in (("ffm", False), ("conv_out", False), ("conv_out16", True)):
        for a, b in zip(*map(jax.tree.leaves, (plain[part], new[part])), strict=True):
            assert np.allclose(a, b, rtol=1e-4, atol=1e-6) == same, part
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
        {part: plain[part] for part in ("cp", "sp", "conv_out32")},
        {part: new[part] for part in ("cp", "sp", "conv_out32")},
    )


def test_sizes_that_the_original_refuses():
    model = create_model("bisenet", 3, form="ss_ada", width=0.125)
    trees = jax.eval_shape(model.init, jax.random.key(0))
    prediction, _ = jax.eval_shape(
        lambda *trees: model.forward(
            *trees, jnp.zeros((1, 36, 52, 3)), train=False, rngs=KEYS[0], perturb=True
        ),
        *trees,
    )
    for logits in (
        prediction.logits,
        prediction.perturbed_logits,
        *prediction.aux_logits,
    ):
        assert logits.shape == (1, 36, 52, 3)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("rngs", (None, {"params": jax.random.key(0)}))
def test_a_missing_key_is_explained(name, rngs):
    model = create_model(name, 3, width=0.125)
    with pytest.raises(UserError, match=r'perturb=True.*rngs=\{"dropout": key\}'):
        model.forward({}, {}, X, train=False, rngs=rngs, perturb=True)
