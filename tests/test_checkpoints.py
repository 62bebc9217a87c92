import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from uda_jax import parallel
from uda_jax.checkpoints import Checkpoints
from uda_jax.errors import UserError
from uda_jax.train import TrainState


def make_state(step=0, classes=3, name="kernel"):
    rng = np.random.default_rng(step)
    kernel = jnp.asarray(rng.normal(size=(2, classes)), jnp.float32)
    return TrainState(
        step=jnp.int32(step),
        params={"segmentor": {"head": {name: kernel}}},
        batch_stats={"mean": jnp.asarray(rng.normal(size=4), jnp.float32)},
        opt_state=((), {"trace": kernel.astype(jnp.bfloat16)}),
        memory={"thresholds": jnp.full(classes, 0.8, jnp.float32)},
        key=jax.random.split(jax.random.key(step + 7))[0],
    )


def numbers(state):
    raw = state.replace(key=jax.random.key_data(state.key))
    return [np.asarray(x) for x in jax.tree.leaves(raw)]


@pytest.fixture
def checkpoints(tmp_path):
    it = Checkpoints(tmp_path / "checkpoints")
    yield it
    it.close()


def test_restores_every_bit_and_the_key(checkpoints):
    mesh = parallel.make_mesh()
    state = parallel.replicate(make_state(4), mesh)
    checkpoints.save(4, state)
    checkpoints.wait()
    again = checkpoints.restore(4, parallel.replicate(make_state(0), mesh))
    for a, b in zip(numbers(state), numbers(again), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)
    assert jax.tree.structure(again) == jax.tree.structure(state)
    shardings = [[x.sharding for x in jax.tree.leaves(s)] for s in (state, again)]
    assert shardings[0] == shardings[1]  # or else the train step is compiled again
    wanted = jax.random.normal(state.key, (3,))
    np.testing.assert_array_equal(jax.random.normal(again.key, (3,)), wanted)


def test_keeps_the_latest_and_the_best(checkpoints):
    assert checkpoints.find("latest") is checkpoints.find("best") is None
    for step, miou in [(1, 0.2), (2, 0.6), (3, None), (4, 0.6), (5, 0.3), (6, None)]:
        checkpoints.save(step, make_state(step), miou)
    checkpoints.wait()
    assert checkpoints.find("latest") == 6
    # Both 2 and 4 have the best score; whichever is kept is found.
    best = checkpoints.find("best")
    assert best in (2, 4)
    assert checkpoints.steps() == [best, 6]
    with pytest.raises(UserError, match='"newest" is unknown'):
        checkpoints.find("newest")


def test_parts_are_read_without_a_template(checkpoints):
    checkpoints.save(1, make_state(1), 0.5)
    checkpoints.wait()
    parts = checkpoints.restore_parts(1, ("params", "batch_stats"))
    assert set(parts) == {"params", "batch_stats"}
    np.testing.assert_array_equal(
        parts["params"]["segmentor"]["head"]["kernel"],
        make_state(1).params["segmentor"]["head"]["kernel"],
    )


@pytest.mark.parametrize(
    ("template", "words"),
    [
        (dict(classes=5), r"head/kernel is float32\[2, 3\] there and float32\[2, 5\]"),
        (dict(name="weight"), "lacks .*head/weight and has .*head/kernel"),
    ],
)
def test_another_network_is_one_sentence(checkpoints, template, words):
    checkpoints.save(1, make_state(1))
    checkpoints.wait()
    with pytest.raises(UserError, match=words) as caught:
        checkpoints.restore(1, make_state(0, **template))
    assert "\n" not in str(caught.value)
    assert str(checkpoints.directory / "1") in str(caught.value)


def test_a_half_written_folder_is_no_checkpoint(tmp_path):
    folder = tmp_path / "checkpoints"
    first = Checkpoints(folder)
    first.save(1, make_state(1))
    first.close()
    unfinished = folder / "2.orbax-checkpoint-tmp"  # Orbax renames it when it is whole
    shutil.copytree(folder / "1", unfinished)
    reader = Checkpoints(folder, read_only=True)
    assert reader.steps() == [1]
    reader.close()
    assert unfinished.exists()
    again = Checkpoints(folder)
    assert again.find("latest") == 1
    again.save(2, make_state(2))
    again.wait()
    assert again.find("latest") == 2
    again.close()
