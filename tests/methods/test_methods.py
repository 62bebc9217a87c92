"""One sweep over every method, with a network so small that a step costs nothing."""

import inspect

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from uda_jax.methods import METHODS
from uda_jax.methods.tufl import PAIR_LOSSES, SINGLE_LOSSES
from uda_jax.models.model import Prediction

C = 4
# Colours take most of the time to compile: "source_only", its "-maxsquare",
# "tufl-focal" and "tufl-entropy" have them.
PLAIN = {"source_color_strength": 0.0, "color_strength": 0.0}

CASES = {
    "source_only": ("source_only", {}),
    "source_only-ohem": ("source_only", {"source_loss": "ohem"}),
    "source_only-maxsquare": (
        "source_only",
        {"source_loss": "valid", "view": "maxsquare"},
    ),
    "tufl-target_statistics": (
        "tufl",
        {"statistics": "target", "class_weights": "none", **PLAIN},
    ),
    **{
        f"tufl-{name}": (
            "tufl",
            {
                **{"unsup_loss": name, "class_weights": "none"},
                **({} if name in ("focal", "entropy") else PLAIN),
            },
        )
        for name in PAIR_LOSSES + SINGLE_LOSSES
    },
}


@flax.struct.dataclass
class State:
    step: jax.Array
    params: dict
    batch_stats: dict
    memory: dict


def forward(params, batch_stats, image, *, train, rngs=None):
    """Three 1x1 convolutions; the batch statistics count the images seen."""
    heads = [image @ head["kernel"] + head["bias"] for head in params["heads"]]
    stats = {"seen": batch_stats["seen"] + image.shape[0]}
    return Prediction(heads[0], tuple(heads[1:])), stats


def toy_batch():
    """Four colours, one for each class; the target is the same, darker."""
    rng = np.random.default_rng(0)
    colours = np.array([[220, 60, 60], [60, 200, 60], [60, 60, 210], [200, 200, 60]])
    label = np.kron(rng.integers(0, C, (2, 3, 4)), np.ones((1, 4, 4), int))
    source = colours[label] + rng.integers(-20, 20, (*label.shape, 3))
    label[:, 0] = 255
    return {
        "source": {"image": source.astype("uint8"), "label": label.astype("uint8")},
        "target": {"image": (source[::-1] * 0.7).astype("uint8")},
    }


def start(method):
    extra, memory = method.init(jax.random.key(1))
    keys = jax.random.split(jax.random.key(0), 3)
    heads = [
        {"kernel": 0.1 * jax.random.normal(key, (3, C)), "bias": jnp.zeros(C)}
        for key in keys
    ]
    params = {"segmentor": {"heads": heads}, **extra}
    stats = {"seen": jnp.zeros((), jnp.int32)}
    return State(jnp.zeros((), jnp.int32), params, stats, memory)


@pytest.mark.parametrize("case", CASES)
def test_trains_and_compiles_once(case):
    name, options = CASES[case]
    method = METHODS[name](forward, C, **options)
    batch, traces = toy_batch(), []

    @jax.jit
    def step(state, batch):
        traces.append(1)
        key = jax.random.fold_in(jax.random.key(2), state.step)
        (loss, out), grads = jax.value_and_grad(method.loss, has_aux=True)(
            state.params, state, batch, key
        )
        params = jax.tree.map(lambda p, g: p - 0.3 * g, state.params, grads)
        return (
            State(state.step + 1, params, out.batch_stats, out.memory),
            loss,
            out.metrics,
            out.images,
            grads,
        )

    state = start(method)
    before = jax.tree.map(jnp.shape, state)
    history = []
    for _ in range(20):
        state, loss, metrics, images, grads = step(state, batch)
        history.append(metrics["loss/source"])
        assert loss == metrics["loss/total"]
        for value in jax.tree.leaves((loss, metrics, grads)):
            assert np.all(np.isfinite(value))
        # Every part of the network gets a gradient.
        for gradient in jax.tree.leaves(grads):
            assert np.abs(gradient).max() > 0
    assert len(traces) == 1
    assert jax.tree.map(jnp.shape, state) == before
    assert state.batch_stats["seen"] > 0
    assert np.mean(history[-3:]) < 0.7 * history[0]
    assert all(key.count("/") == 1 for key in metrics)
    assert all(value.shape == () for value in metrics.values())
    for panel in images.values():
        assert panel.shape[:3] == (2, 12, 16) and panel.shape[3:] in ((), (3,))


@pytest.mark.parametrize("name", METHODS)
def test_unknown_keyword_is_named(name):
    with pytest.raises(TypeError, match="wieght"):
        METHODS[name](forward, C, wieght=1.0)


@pytest.mark.parametrize("name", METHODS)
def test_every_option_has_a_default_and_is_documented(name):
    for parameter in inspect.signature(METHODS[name]).parameters.values():
        if parameter.kind is parameter.KEYWORD_ONLY:
            assert parameter.default is not parameter.empty
        assert parameter.name in METHODS[name].__doc__
