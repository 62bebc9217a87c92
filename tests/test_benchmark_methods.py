"""The figures of `scripts/benchmark.py methods`, and what they must show of ADVENT."""

import sys
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import pytest
from conftest import ROOT

from uda_jax.errors import UserError
from uda_jax.factories import build
from uda_jax.methods import METHODS
from uda_jax.methods.advent import advent
from uda_jax.methods.mixes import MIXES
from uda_jax.models.discriminator import discriminator
from uda_jax.models.model import Prediction

sys.path.insert(0, str(ROOT / "scripts"))
import benchmark_methods
import benchmark_mixing
from measuring import take_turns


def test_ratios_are_of_the_same_round():
    images = {"segmentor": [4, 4], "discriminator": [4, 4, 4]}
    programs = {
        "source-only": benchmark_methods.Program(
            lambda: None, 2e9, {"segmentor": [4], "discriminator": []}
        ),
        "ADVENT": benchmark_methods.Program(lambda: None, 5e9, images),
    }
    times = {"source-only": [10.0, 20.0, 40.0], "ADVENT": [30.0, 80.0, 80.0]}
    first, second = benchmark_methods.summarise(programs, times)
    assert first["ratio_min"] == first["ratio"] == first["ratio_max"] == 1
    assert (second["ratio_min"], second["ratio"], second["ratio_max"]) == (2, 3, 4)
    rows = benchmark_methods.table([first, second]).splitlines()[2:]
    one, two = "1.00 (1.00 to 1.00) | 1.00", "3.00 (2.00 to 4.00) | 2.50"
    assert rows[0] == f"| source-only | 20 ms | {one} | 1 x 4 images | – |"
    assert rows[1] == f"| ADVENT | 80 ms | {two} | 2 x 4 images | 3 x 4 images |"


def test_nobody_always_comes_first():
    order = []
    results = take_turns(["a", "b"], 3, lambda name: order.append(name) or len(order))
    assert order == ["a", "b", "b", "a", "a", "b"]
    assert results == {"a": [1, 4, 5], "b": [2, 3, 6]}


def test_shares_of_stage_two_are_of_the_same_round():
    names = benchmark_mixing.STAGE_TWO, benchmark_mixing.MIXED
    times = dict(zip(names, ([100.0, 200.0, 400.0], [90.0, 160.0, 380.0]), strict=True))
    times[benchmark_mixing.LABELLED] = [60.0, 150.0, 280.0]
    parts = benchmark_mixing.shares(times)
    assert parts == {
        "mixing and pasting": [10.0, 20.0, 5.0],
        "the frozen network": [30.0, 5.0, 25.0],
    }
    assert benchmark_mixing.shares_text(parts) == (
        "Of a step of TUFL stage two: mixing and pasting 10 % (5 to 20), the frozen "
        "network 25 % (5 to 30)."
    )


def test_the_ready_mix_is_not_left_among_the_librarys():
    def compile_it(row):
        with benchmark_mixing.with_ready():
            build(METHODS, "method", row, None, 13)

    names = list(MIXES)
    for row in benchmark_mixing.PARTIAL.values():
        compile_it(row)
    with pytest.raises(UserError, match="nonsense"):
        compile_it({"name": "tufl", "mix": {"name": "nonsense"}})
    assert list(MIXES) == names


def flops(function, *arguments):
    return jax.jit(function).lower(*arguments).compile().cost_analysis()["flops"]


def test_advent_passes_through_its_discriminator_once_for_each_domain():
    """Two forward passes, two backward to its weights, one to the target's maps."""
    network, shape = discriminator(2), (1, 32, 32)

    def forward(params, batch_stats, image, *, train, rngs):
        return Prediction(image @ params), batch_stats

    method = advent(forward, 2, adversarial_aux_weight=0.0, aux_weight=0.0)
    extra, memory = jax.eval_shape(method.init, jax.random.key(0), None, None)

    def loss(params, source, target):
        label = jnp.zeros(shape, jnp.uint8)
        batch = {"source": {"image": source, "label": label}}
        batch["target"] = {"image": target}
        state = SimpleNamespace(batch_stats={}, memory=memory)
        return method.loss(params, state, batch, jax.random.key(1))[0]

    def by_hand(params, source, target):
        _, from_source = jax.vjp(lambda p: network.forward(p, source), params)
        scores, from_target = jax.vjp(network.forward, params, target)
        to_weights, to_maps = from_target(scores)[0], from_target(-scores)[1]
        return from_source(scores), to_weights, to_maps

    array = jax.ShapeDtypeStruct
    images = [array((*shape, 3), jnp.uint8)] * 2
    params = {"segmentor": array((3, 2), jnp.float32), **extra}
    step = flops(jax.grad(loss), params, *images)
    maps = [array((*shape, 2), jnp.float32)] * 2
    needed = flops(by_hand, extra["discriminator"]["main"], *maps)
    # One forward pass more would be 14 %; logarithms and cross-entropy are below 2 %.
    assert step == pytest.approx(needed, rel=0.02)
