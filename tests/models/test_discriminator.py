"""The discriminator: parity with the published one, names, initial values."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from uda_jax import convert
from uda_jax.errors import UserError
from uda_jax.models.discriminator import TORCH, discriminator

GOLDENS = Path(__file__).parent.parent / "goldens"
CHANNELS = (19, 64, 128, 256, 512, 1)


def published_tensors():
    """ADVENT's names and the goldens' weights."""
    random, tensors = np.random.RandomState(200), {}
    for i in range(5):
        shape = (CHANNELS[i + 1], CHANNELS[i], 4, 4)
        weight = random.randn(*shape) * np.sqrt(2 / (16 * CHANNELS[i]))
        tensors[f"{2 * i}.weight"] = weight.astype(np.float32)
        bias = 0.1 * random.randn(CHANNELS[i + 1])
        tensors[f"{2 * i}.bias"] = bias.astype(np.float32)
    return tensors


@pytest.fixture(scope="module")
def network():
    model = discriminator(19)
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    table = TORCH["advent"].to_flax
    return model, convert.from_torch(published_tensors(), table, shapes, {})[0]


def test_scores_equal_the_published_network(network):
    model, params = network
    golden = json.loads((GOLDENS / "maxsquare_advent.json").read_text())["disc"]
    x = np.random.RandomState(201).rand(1, 19, 70, 90).astype(np.float32)
    scores = np.asarray(model.forward(params, x.transpose(0, 2, 3, 1)))
    assert scores.dtype == np.float32 and scores.shape == (1, 2, 2, 1)
    assert golden["shape"] == [1, 1, 2, 2]
    np.testing.assert_allclose(scores.ravel()[:3], golden["first3"], rtol=1e-4)
    np.testing.assert_allclose(scores.ravel()[3], golden["last"], rtol=1e-4)


@pytest.mark.parametrize(
    "size, scores",
    [((720, 1280), (22, 40)), ((760, 1280), (23, 40)), ((32, 63), (1, 1))],
)
def test_each_score_covers_32_pixels(network, size, scores):
    model, params = network
    x = jax.ShapeDtypeStruct((2, *size, 19), jnp.bfloat16)
    y = jax.eval_shape(model.forward, params, x)
    assert (y.shape, y.dtype) == ((2, *scores, 1), jnp.float32)


def test_number_of_parameters_and_names_of_both_papers(network):
    _, params = network
    assert sum(x.size for x in jax.tree.leaves(params)) == 2_781_121
    tensors = convert.to_torch(params, {}, TORCH["advent"].to_torch)
    assert tensors.keys() == published_tensors().keys()
    for name, tensor in published_tensors().items():
        np.testing.assert_array_equal(tensors[name], tensor)
    tensors = convert.to_torch(params, {}, TORCH["adaptsegnet"].to_torch)
    layers = ("conv1", "conv2", "conv3", "conv4", "classifier")
    names = {f"{layer}.{last}" for layer in layers for last in ("weight", "bias")}
    assert tensors.keys() == names
    back, _ = convert.from_torch(tensors, TORCH["adaptsegnet"].to_flax, params, {})
    jax.tree.map(np.testing.assert_array_equal, back, params)


def test_initial_values_are_uniform_by_fan_in():
    params = discriminator(2).init(jax.random.key(0))
    for name, channels in {"conv1": 2, "conv2": 64, "classifier": 512}.items():
        width = (16 * channels) ** -0.5
        for leaf in params[name].values():
            assert 0 < np.abs(leaf).max() <= width
        assert np.std(params[name]["kernel"]) == pytest.approx(width / 3**0.5, rel=0.05)


def test_gradients_reach_the_parameters_and_the_input():
    model = discriminator(2)
    params = model.init(jax.random.key(0))
    x = jax.random.uniform(jax.random.key(1), (1, 33, 40, 2))
    gradient = jax.grad(lambda p, x: jnp.sum(model.forward(p, x) ** 2), argnums=(0, 1))
    for leaf in jax.tree.leaves(jax.jit(gradient)(params, x)):
        assert np.all(np.isfinite(leaf)) and np.any(leaf != 0)


@pytest.mark.parametrize("shape", [(1, 31, 64, 19), (1, 64, 64, 13)])
def test_an_input_that_does_not_fit_is_explained(network, shape):
    model, params = network
    with pytest.raises(UserError, match="32x32 with 19 channels"):
        model.forward(params, np.zeros(shape, np.float32))
