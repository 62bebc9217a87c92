import jax
import numpy as np
import pytest
from conftest import (
    BALANCED,
    STAGE_TWO,
    STREAMS,
    devices,
    run_two,
    start,
    write_config,
    write_network,
)
from ml_collections import ConfigDict

from uda_jax import parallel, train
from uda_jax.checkpoints import Checkpoints
from uda_jax.errors import UserError

STEPS = 3


@pytest.fixture(scope="module")
def config(tiny, tmp_path_factory):
    config = tiny(STAGE_TWO, steps=STEPS, batch_size=8)
    config.data.streams = ConfigDict(STREAMS)
    config.frozen_from, _ = write_network(tmp_path_factory.mktemp("frozen"), config)
    # Confident or not, and a quantile, are discontinuous: at 0.01 a rounding error
    # becomes a pixel more or less in step 3, and the runs part.  Published: 5e-5.
    config.optimizer.learning_rate = 5e-4
    config.evaluation.batch_size = 8
    return config


@pytest.fixture(scope="module")
def one_device(config, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("parallel") / "one"
    train.fit(config, workdir)
    return workdir


def numbers(workdir):
    checkpoints = Checkpoints(workdir / "checkpoints", read_only=True)
    parts = checkpoints.restore_parts(STEPS, ("params", "batch_stats", "memory"))
    checkpoints.close()
    return jax.tree.map(np.asarray, parts)


def assert_close(workdir, other):
    assert_all_close(workdir, other)
    moved = numbers(other)["memory"]["thresholds"]
    assert (moved != np.float32(0.1)).any()  # the target took part


def assert_all_close(workdir, other):
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
    jax.tree.map(close, numbers(workdir), numbers(other))


@pytest.fixture(scope="module")
def eight_devices(config, tmp_path_factory):
    """(workdir, the process at work there); it runs while `one_device` does."""
    folder = tmp_path_factory.mktemp("eight")
    file = write_config(folder / "config.py", config)
    environment = {**devices(8), "JAX_LOG_COMPILES": "1"}
    return folder / "run", start(file, folder / "run", env=environment)


def test_eight_devices_equal_one(eight_devices, one_device):
    workdir, process = eight_devices
    out, err = process.communicate()
    assert process.returncode == 0, err
    assert err.count("Compiling jit(train_step)") == 1
    assert "8 x cpu in 1 process" in out
    assert_close(workdir, one_device)


def test_two_processes_equal_one(config, one_device, tmp_path):
    file = write_config(tmp_path / "config.py", config)
    arguments = (f"--config={file}", f"--workdir={tmp_path / 'run'}")
    outputs = run_two("uda_jax.main", *arguments)
    for code, _, err in outputs:
        assert code == 0, err
    assert "2 x cpu in 2 process" in outputs[0][1]
    last = f"step {STEPS}/{STEPS}"  # one of them speaks and writes
    assert last in outputs[0][1] and last not in outputs[1][1]
    rows = (tmp_path / "run/metrics.jsonl").read_text().splitlines()
    assert len(rows) == STEPS + 1
    assert (tmp_path / "run/report.html").exists()
    assert_close(tmp_path / "run", one_device)


@pytest.mark.slow  # as above, with a teacher and a quantile of the global batch
def test_self_training_on_eight_devices_equals_one(config, tmp_path):
    config = config.copy_and_resolve_references()
    config.data.streams = ConfigDict()
    # No pixel is near that confidence: it would be a discontinuity.
    config.method = ConfigDict({**BALANCED, "threshold": 0.0})
    file = write_config(tmp_path / "config.py", config)
    process = start(file, tmp_path / "eight", env=devices(8))
    train.fit(config, tmp_path / "one")
    _, err = process.communicate()
    assert process.returncode == 0, err
    assert_all_close(tmp_path / "eight", tmp_path / "one")
    assert numbers(tmp_path / "one")["memory"]["further"]["level"] > 0.1


def test_a_batch_that_cannot_be_divided(config, tmp_path):
    file = write_config(tmp_path / "config.py", config)
    process = start(file, tmp_path / "run", env=devices(3))
    _, err = process.communicate()
    assert process.returncode == 2
    assert err.count("\n") == 1
    assert "batch_size=8 cannot be divided among 3 devices" in err
    assert "multiple of 3" in err
    assert not (tmp_path / "run").exists()


def test_check_batch():
    mesh = parallel.make_mesh()
    parallel.check_batch(4, 2, mesh)
    for batch_size, accumulate_steps in [(4, 3), (0, 1), (-2, 1)]:
        with pytest.raises(UserError, match="multiple of"):
            parallel.check_batch(batch_size, accumulate_steps, mesh)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((None, 2, 0), "without --coordinator"),
        ((None, None, 1), "without --coordinator"),
        (("host:1", None, 0), "needs --num_processes"),
        (("host:1", 2, None), "needs --num_processes"),
    ],
)
def test_incomplete_process_arguments(arguments, words):
    with pytest.raises(UserError, match=words):
        parallel.start_processes(*arguments)


def test_replicate_copies():
    mesh = parallel.make_mesh()
    tree = {"a": np.arange(3.0, dtype=np.float32), "key": jax.random.key(3)}
    copy = parallel.replicate(tree, mesh)
    np.testing.assert_array_equal(copy["a"], tree["a"])
    assert (jax.random.key_data(copy["key"]) == jax.random.key_data(tree["key"])).all()
    source = jax.numpy.ones(3)
    jax.jit(lambda x: x + 1, donate_argnums=0)(parallel.replicate(source, mesh))
    assert float(source.sum()) == 3
