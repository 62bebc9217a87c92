import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import ROOT

from uda_jax.errors import UserError
from uda_jax.models import create_model
from uda_jax.optimizers import in_segmentor, is_kernel, make_optimizer, poly

MODEL = create_model("bisenet", 13, width=0.125)
CONSTANT = {"name": "constant"}
SGD = {"name": "sgd", "momentum": 0.9}
ADAMW = {"name": "adamw", "beta1": 0.8, "beta2": 0.95, "eps": 1e-3}


@pytest.mark.parametrize("warmup", [0, 100])
def test_poly_is_the_released_schedule(warmup):
    golden = np.load(ROOT / "tests/goldens/tufl_ssada.npz")
    golden = golden[f"tufl/lr_groups_warm{warmup}"]
    # The released program multiplies every group's rate, and the start, by ten (Q2).
    rate = poly(10 * 0.5e-5, 2000, warmup_steps=warmup, warmup_start=10 * 1e-5)
    ours = jax.vmap(rate)(jnp.arange(2000))
    np.testing.assert_allclose(ours, golden[:, 0], rtol=2e-5)
    assert (golden == golden[:, :1]).all()


def test_poly_laid_out_for_more_steps_than_are_run():
    # The released MaxSquare and ADVENT schedules at some of their steps.
    for step, horizon, expected in (
        (60_000, 250_000, 1.952865089e-4),
        (119_999, 250_000, 1.387861168e-4),
        (80_000, 200_000, 1.578614669e-4),
    ):
        rate = poly(2.5e-4, 120_000, horizon=horizon)
        assert float(rate(step)) == pytest.approx(expected, rel=1e-6)
    with pytest.raises(UserError, match=r"horizon=10 ends before .*steps=20"):
        poly(0.1, 20, horizon=10)


def test_poly_ends_at_zero():
    rate = poly(0.1, 10)
    assert float(rate(jnp.int32(10))) == float(rate(jnp.int32(12))) == 0


def params():
    return {
        "segmentor": {
            "cp": {"kernel": jnp.array([[1.0, -2.0]]), "bias": jnp.array([0.5])},
            "ffm": {"kernel": jnp.array([[3.0, 0.2]])},
            "conv_out": {"scale": jnp.array([1.5])},
        }
    }


def gradients(step):
    return jax.tree.map(lambda p: jnp.sin(p * (step + 1)), params())


def ours(row, steps=3, schedule=CONSTANT, head_multiplier=1.0):
    row = {"learning_rate": 0.1, "weight_decay": 0.01, **row}
    row["head_multiplier"] = head_multiplier
    optimizer, _ = make_optimizer(row, schedule, steps=steps, model=MODEL)
    tree = params()
    state = optimizer.init(tree)
    for step in range(steps):
        updates, state = optimizer.update(gradients(step), state, tree)
        tree = optax.apply_updates(tree, updates)
    return tree["segmentor"]


def torch_sgd(p, gradient, rates, decay, momentum=0.9):
    velocity = 0
    for step, rate in enumerate(rates):
        velocity = momentum * velocity + gradient(step) + decay * p
        p = p - rate * velocity
    return p


def torch_adamw(p, gradient, rates, decay, beta1=0.8, beta2=0.95, eps=1e-3):
    m = v = 0
    for t, rate in enumerate(rates, 1):
        g = gradient(t - 1)
        p = p * (1 - rate * decay)
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g * g
        p = p - rate * (m / (1 - beta1**t)) / (np.sqrt(v / (1 - beta2**t)) + eps)
    return p


@pytest.mark.parametrize(("row", "torch"), [(SGD, torch_sgd), (ADAMW, torch_adamw)])
def test_three_steps_as_in_pytorch(row, torch):
    schedule = {"name": "poly", "power": 1.0}
    result, start = ours(row, schedule=schedule), params()["segmentor"]
    rates = [0.1, 0.1 * 2 / 3, 0.1 / 3]
    for part, name, decay in [
        ("cp", "kernel", 0.01),
        ("cp", "bias", 0.0),
        ("ffm", "kernel", 0.01),
        ("conv_out", "scale", 0.0),
    ]:
        p = np.asarray(start[part][name], np.float64)
        gradient = lambda step, p=p: np.sin(p * (step + 1))
        wanted = torch(p, gradient, rates, decay)
        np.testing.assert_allclose(result[part][name], wanted, 1e-5, 1e-6, err_msg=part)


@pytest.mark.parametrize("row", [SGD, ADAMW])
def test_head_multiplier_is_a_learning_rate(row):
    plain, heads = ours(row, steps=1), ours(row, steps=1, head_multiplier=10.0)
    start = params()["segmentor"]
    for part, factor in {"cp": 1, "ffm": 10, "conv_out": 10}.items():
        for name in start[part]:
            step = plain[part][name] - start[part][name]
            np.testing.assert_allclose(
                heads[part][name] - start[part][name], factor * step, rtol=1e-4
            )


def test_groups_of_the_real_network():
    model = create_model("bisenet", 13, width=0.125)
    tree = {"segmentor": jax.eval_shape(model.init, jax.random.key(0))[0]}
    heads = in_segmentor(tree, model.heads)["segmentor"]
    with_heads = {k for k, v in heads.items() if any(jax.tree.leaves(v))}
    assert with_heads == {"ffm", "conv_out", "conv_out16", "conv_out32"} & heads.keys()
    assert {"ffm", "conv_out"} < with_heads
    for name in with_heads:
        assert all(jax.tree.leaves(heads[name]))
    for path, decayed in jax.tree_util.tree_leaves_with_path(is_kernel(tree)):
        assert decayed == (path[-1].key == "kernel"), path


def test_mistakes():
    row = {"learning_rate": 0.1, "weight_decay": 0.0, "head_multiplier": 1.0}
    make = lambda row, schedule=CONSTANT: make_optimizer(
        row, schedule, steps=2, model=MODEL
    )
    with pytest.raises(UserError, match="must be above 0"):
        make({**row, **SGD, "learning_rate": 0.0})
    with pytest.raises(UserError, match='did you mean "momentum"'):
        make({**row, "name": "sgd", "momentun": 0.9})
    with pytest.raises(UserError, match=r"momentum='high' .* must be a number"):
        make({**row, "name": "sgd", "momentum": "high"})
    with pytest.raises(UserError, match='"polly" is unknown'):
        make({**row, **SGD}, {"name": "polly"})


def test_frozen_parameters_get_no_step_no_decay_and_no_state():
    row = {"learning_rate": 0.1, "weight_decay": 0.1, "head_multiplier": 1.0, **SGD}
    frozen = MODEL._replace(frozen=(r"ffm/",))
    optimizer, _ = make_optimizer(row, CONSTANT, steps=2, model=frozen)
    tree = params()
    state = optimizer.init(tree)
    whole = make_optimizer(row, CONSTANT, steps=2, model=MODEL)[0].init(tree)
    assert len(jax.tree.leaves(state)) < len(jax.tree.leaves(whole))
    updates, _ = optimizer.update(gradients(0), state, tree)
    for path, update in jax.tree_util.tree_leaves_with_path(updates):
        assert np.any(update != 0) == ("ffm" not in str(path)), path
