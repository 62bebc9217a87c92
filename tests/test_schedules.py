import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import ROOT

from uda_jax.errors import UserError
from uda_jax.schedules import mmseg_poly, poly


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


@pytest.mark.parametrize(
    ("form", "start"), [("linear", 0.0), ("exponential", 0.05 * 5e-4)]
)
def test_the_warmups_of_ss_ada(form, start):
    name = {"linear": "linear", "exponential": "exp"}[form]
    golden = np.load(ROOT / "tests/goldens/tufl_ssada.npz")[f"ssada/lr_used_{name}"]
    options = dict(warmup_steps=1000, warmup_start=start, warmup_form=form)
    late = jax.vmap(poly(0.05, 2000, legacy_offset=True, **options))(jnp.arange(2000))
    np.testing.assert_allclose(late, golden[:, 0], rtol=2e-5)
    np.testing.assert_allclose(golden[:, 1], 10 * golden[:, 0])  # the heads
    ours = jax.vmap(poly(0.05, 2000, **options))(jnp.arange(1999))
    np.testing.assert_array_equal(ours, late[1:])
    # A step that is no array, and one past the end.
    assert float(poly(0.05, 2000, legacy_offset=True, **options)(0)) == np.float32(0.05)
    assert float(poly(0.05, 2000, legacy_offset=True, **options)(2001)) == 0


def test_daformers_schedule_is_mmcvs():
    golden = json.loads((ROOT / "tests/goldens/daformer.json").read_text())["lr"]
    rate = mmseg_poly(6e-5, 40_000)
    for step, (backbone, head) in golden.items():
        assert float(rate(int(step))) == pytest.approx(backbone, rel=1e-5)
        heads = mmseg_poly(6e-4, 40_000)(int(step))
        assert float(heads) == pytest.approx(head, rel=1e-5)
    with pytest.raises(UserError, match=r"warmup_ratio is 2: give at least 0, at most"):
        mmseg_poly(6e-5, 2000, warmup_ratio=2)
    with pytest.raises(UserError, match=r"warmup_steps=1500 is more than .*steps=100"):
        mmseg_poly(6e-5, 100)


def test_a_warmup_that_cannot_rise_is_refused():
    with pytest.raises(UserError, match=r'did you mean "linear"'):
        poly(0.1, 10, warmup_steps=2, warmup_form="liner")
    with pytest.raises(UserError, match=r"warmup_start=0\.0, from which"):
        poly(0.1, 10, warmup_steps=2, warmup_start=0.0)


def test_poly_ends_at_zero():
    rate = poly(0.1, 10)
    assert float(rate(jnp.int32(10))) == float(rate(jnp.int32(12))) == 0
