"""Two whole training steps of each method against those of the original programs.

The real train step, optimizer and methods, with the originals' networks of one block in
each stage.  A step takes about ten seconds of a core to compile: one run of each method
is in the ordinary suite, the others are slow.
"""

import json
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from models.published_deeplabv2 import ADVENT, MAXSQUARE
from published_steps import (
    BLOCKS,
    C,
    batch,
    discriminator_tensors,
    segmentor_tensors,
)

from uda_jax import augment, convert
from uda_jax.methods import METHODS
from uda_jax.models import create_model, resnet
from uda_jax.models.discriminator import TORCH
from uda_jax.optimizers import make_optimizer
from uda_jax.train import TrainState, make_train_step

GOLDENS = Path(__file__).parents[1] / "goldens" / "maxsquare_advent_step.json"

MULTI_LEVEL = {"target_weight": 1.0, "multi_level": True, "threshold": 0.3}
ADVERSARIAL = {"adversarial_weight": 0.5, "adversarial_aux_weight": 0.25}
MINENT = {"entropy_weight": 0.5, "entropy_aux_weight": 0.25}
# The golden's run -> method and options.
RUNS = {
    "maxsq_maxsquare": ("maxsquare", MULTI_LEVEL),
    "maxsq_IW_maxsquare": ("maxsquare", {"image_ratio": 0.2, **MULTI_LEVEL}),
    "maxsq_entropy": ("maxsquare", {"target_loss": "entropy", **MULTI_LEVEL}),
    "AdvEnt": ("advent", ADVERSARIAL),
    "AdaptSeg": ("advent", {"signal": "softmax", **ADVERSARIAL}),
    "MinEnt": ("minent", MINENT),
}
# One of each method, both forms of SGD, and the image-wise weights.
FAST = ("maxsq_IW_maxsquare_dup", "AdaptSeg_dedup", "MinEnt_dup")
DUPLICATES = {"dup": "legacy_inplace", "dedup": "dedup"}
POLY = {"name": "poly", "horizon": 10}
ADAM = {
    "name": "adam",
    "learning_rate": 1e-4,
    "weight_decay": 0.0,
    "beta1": 0.9,
    "beta2": 0.99,
}
SEEDS = {"aux": 400, "main": 401}  # of the discriminators
# The golden's logs: the metric and its factor there.
LOGS = {
    "maxsquare": (
        ("loss/source", 1.0),
        ("loss/source_aux", 0.1),
        ("loss/target", 1.0),
        ("loss/guidance", 0.1),
        ("pseudo/confident", 1.0),
    ),
    "advent": (
        ("loss/source", 1.0),
        ("loss/source_aux", 1.0),
        ("loss/adversarial_main", 1.0),
        ("loss/adversarial_aux", 1.0),
        ("discriminator/aux_source", 1.0),
        ("discriminator/aux_target", 1.0),
        ("discriminator/main_source", 1.0),
        ("discriminator/main_target", 1.0),
    ),
    "minent": (
        ("loss/source", 1.0),
        ("loss/source_aux", 1.0),
        ("loss/entropy", 1.0),
        ("loss/entropy_aux", 1.0),
    ),
}


@pytest.fixture(scope="module")
def originals():
    """The originals' four blocks, and images that are normalised already."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(resnet.BLOCKS, "four_blocks", BLOCKS)
        patch.setattr(resnet, "BOTTLENECK", (*resnet.BOTTLENECK, "four_blocks"))
        patch.setitem(augment.SOURCE_VIEWS, "none", lambda key, image: image)
        yield


def load(tensors, table, wanted):
    return convert.from_torch(tensors, table.to_flax, *wanted)


def two_steps(name, options, duplicates):
    """(logs of both steps, segmentor's tensors before and after, discriminator's)."""
    network, sizes = ADVENT, ((64, 80), (64, 96))
    if name == "maxsquare":
        network, sizes = MAXSQUARE, ((48, 64), (40, 56))
    model = create_model(
        "deeplabv2", C, backbone="four_blocks", input_form="imagenet", **network
    )
    wanted = jax.eval_shape(model.init, jax.random.key(0))
    tensors = segmentor_tensors(model, *wanted)
    segmentor, batch_stats = load(tensors, model.torch, wanted)
    views = {"source_view": "none", "target_view": "none"}
    method = METHODS[name](model.forward, C, **views, **options)
    params, section = {"segmentor": segmentor}, {}
    if name == "advent":
        section = {"optimizer": ADAM, "schedule": POLY}
        shapes = jax.eval_shape(method.init, jax.random.key(0), None, None)[0][
            "discriminator"
        ]
        params["discriminator"] = {
            head: load(discriminator_tensors(SEEDS[head]), TORCH["advent"], (tree, {}))[
                0
            ]
            for head, tree in shapes.items()
        }
    sgd = {
        "name": "sgd",
        "learning_rate": 2.5e-4,
        "weight_decay": 5e-4,
        "head_multiplier": 10.0,
        "momentum": 0.9,
        "decay_of": "all",
        "duplicates": duplicates,
    }
    optimizer, _ = make_optimizer(
        sgd, POLY, steps=2, model=model, discriminator=section
    )
    state = TrainState(
        step=jnp.int32(0),
        params=params,
        batch_stats=batch_stats,
        opt_state=optimizer.init(params),
        memory={},
        key=jax.random.key(0),
    )
    step, logs = make_train_step(method, optimizer), []
    state = jax.tree.map(jnp.array, state)
    for t in range(2):
        state, metrics = step(state, batch(t, *sizes))
        logs.append([factor * metrics[key] for key, factor in LOGS[name]])
    after = convert.to_torch(
        state.params["segmentor"], state.batch_stats, model.torch.to_torch
    )
    changes = {"after2": (tensors, after)}
    if section:
        main = state.params["discriminator"]["main"]
        after = convert.to_torch(main, {}, TORCH["advent"].to_torch)
        changes["D_main_after2"] = discriminator_tensors(SEEDS["main"]), after
    return logs, changes


@pytest.mark.parametrize(
    "run",
    [
        run if run in FAST else pytest.param(run, marks=pytest.mark.slow)
        for run in json.loads(GOLDENS.read_text())
    ],
)
def test_two_steps_equal_the_original(originals, run):
    golden = json.loads(GOLDENS.read_text())[run]
    what, _, duplicates = run.rpartition("_")
    logs, changes = two_steps(*RUNS[what], DUPLICATES[duplicates])
    (theirs,) = (golden[key] for key in golden if key.startswith("logs"))
    np.testing.assert_allclose(logs, theirs, rtol=1e-4)
    for part, (before, after) in changes.items():
        for name, change in golden[part].items():
            mine = np.asarray(after[name] - before[name], np.float64).ravel()
            size, total = change["dl2"], change["dsum"]
            np.testing.assert_allclose(np.linalg.norm(mine), size, 1e-2, err_msg=name)
            # Each parameter is rounded several times; the sum adds that up.
            noise = 4 * 2**-24 * np.linalg.norm(before[name])
            if re.search(r"(conv\d|downsample\.0)\.weight", name):
                # Below a BatchNorm these gradients have mean 0 up to rounding, and
                # images that differ in the last bit move their sum: measured 4e-5.
                noise += 6e-5 * np.abs(mine).sum()
            np.testing.assert_allclose(
                mine.sum(), total, rtol=1e-2, atol=noise, err_msg=name
            )
            first = np.array(change["d[0:2]"])
            there = np.ravel(before[name])[: first.size].astype(np.float32)
            rms = size / np.sqrt(mine.size)
            np.testing.assert_allclose(
                mine[: first.size],
                first,
                rtol=1e-2,
                atol=2e-2 * rms + 4 * np.spacing(np.abs(there)).max(),
                err_msg=name,
            )
