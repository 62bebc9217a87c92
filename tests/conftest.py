"""A street of two tiny cities and a config that trains on it in seconds."""

import gc
import os
import socket
import subprocess
import sys
from pathlib import Path

import cv2
import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from uda_jax.benchmarks import base_config
from uda_jax.models import resnet

# Tests compile large programs to run them a few times: LLVM's optimizations cost three
# times what they save.  (XLA's older fusions would compile faster still, but sum less
# exactly.)  Read when jax starts its backend; subprocesses inherit it.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")

# Tracing makes many objects that live on: looking through them all took a tenth of it.
gc.set_threshold(50_000, 20, 50)

ROOT = Path(__file__).parents[1]
RAW_IDS = (7, 8, 11, 21, 23, 24, 26)  # Cityscapes' ids of some of the 13 classes


def write_png(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), pixels)


def draw(seed, raw_ids=RAW_IDS, size=(96, 128)):
    """Blocks of classes, each in a colour of its own, with noise."""
    rng = np.random.default_rng(seed)
    blocks = rng.integers(0, len(raw_ids), (size[0] // 16, size[1] // 16))
    label = np.kron(np.array(raw_ids)[blocks], np.ones((16, 16), int))
    colours = np.random.default_rng(9).integers(0, 256, (256, 3))
    image = colours[label] + rng.integers(-20, 20, (*size, 3))
    return np.clip(image, 0, 255).astype("uint8"), label.astype("uint8")


def write_cityscapes(root, split, count, seed=0):
    for index in range(count):
        name = f"town_{index:06d}_000019"
        image, label = draw(seed + index)
        write_png(root / f"leftImg8bit/{split}/town/{name}_leftImg8bit.png", image)
        write_png(root / f"gtFine/{split}/town/{name}_gtFine_labelIds.png", label)


def write_crosscity(root, city, split, count, seed=0):
    for index in range(count):
        image, label = draw(seed + index)
        write_png(root / city / f"Images/{split}/pic_{index}.png", image // 2)
        write_png(root / city / f"Labels/{split}/pic_{index}_eval.png", label)


def write_minicity(root):
    """minicity's folders, with blocks instead of streets."""
    write_cityscapes(root / "source", "train", 6)
    write_cityscapes(root / "source", "val", 1, seed=50)
    write_crosscity(root / "target", "Minicity", "Train", 6, seed=100)
    write_crosscity(root / "target", "Minicity", "Test", 3, seed=200)
    return root


def shrink(config: ConfigDict, steps=4) -> ConfigDict:
    """The same config, as small as it gets."""
    config.steps, config.batch_size = steps, 4
    for geometry in (config.data.source, config.data.target):
        for name in {"crop_size", "size"} & set(geometry):
            geometry[name] = (64, 64)
    config.data.threads, config.data.prepared = 0, ""
    config.model.width = 0.125
    if config.model.backbone == "resnet101":  # takes minutes to compile
        config.model.backbone = "resnet18"
    config.log_every = 1
    config.evaluate_every = config.panels_every = config.checkpoint_every = 0
    config.evaluation.batch_size = 1
    return config


SOURCE_ONLY = {"name": "source_only", "class_weights": "none", "heads": "last"}
# Without the colours of the strong view, which take half of the time to compile.
TUFL = {
    **SOURCE_ONLY,
    "name": "tufl",
    "unsup_loss": "adaptive_focal",
    "color_strength": 0.0,
}
MIX = {
    "name": "single",
    "long_tail_probability": 0.5,
    "long_tail_choice": "thresholds",
    "color_strength": 0.0,
}
STREAMS = {"paste": {"name": "long_tail"}}
# With all that is kept from step to step.  13 classes, random weights: a threshold of
# 0.1 lets some pixels take part.
STAGE_TWO = {**TUFL, "threshold": 0.1, "source_color_strength": 0.0, "mix": MIX}
# A mean teacher, a frozen network and a level that follows the batches.
BALANCED = {
    **{"name": "ebda", "balance": "quantile", "entropy": 0.1},
    **{"feature_weight": 0.005, "ignore_top": 0, "ignore_bottom": 0, "colors": "none"},
}
# The network with BatchNorm that compiles fastest: one block in a stage, two in one.
# A config file that write_config makes knows it too.
resnet.BLOCKS["five_blocks"] = (1, 1, 1, 2)
NETWORK = {
    "name": "deeplabv2",
    "backbone": "five_blocks",
    "multi_level": False,
    "affine": "trained",
    "input_form": "imagenet",
    "width": 0.125,
}


@pytest.fixture(scope="session")
def minicity(tmp_path_factory):
    return write_minicity(tmp_path_factory.mktemp("minicity"))


@pytest.fixture(scope="session")
def tiny(minicity, compilation_cache):
    """tiny(method) -> a config of a few small steps on the minicity of this session."""

    def make(method=SOURCE_ONLY, **fields) -> ConfigDict:
        config = base_config("minicity")
        config.model = ConfigDict(NETWORK)
        shrink(config)
        config.source.root = config.validation.root = str(minicity / "source")
        config.target.root = config.test.root = str(minicity / "target")
        config.method = ConfigDict(dict(method))
        config.update(fields)
        return config

    return make


@pytest.fixture(scope="session")
def compilation_cache(tmp_path_factory):
    """What one test compiled, another test or process does not compile again."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent  # of all workers
    folder /= "compiled"
    before = os.environ.get("UDA_JAX_CACHE")
    os.environ.setdefault("UDA_JAX_CACHE", str(folder))
    from uda_jax.program import use_compilation_cache

    use_compilation_cache()
    yield folder
    jax.config.update("jax_compilation_cache_dir", None)
    if before is None:
        del os.environ["UDA_JAX_CACHE"]


def write_network(folder: Path, config: ConfigDict, seed=0, bias=0.0):
    """(file of a network that no run trained, its params); `bias` favours class 3."""
    from uda_jax.runs import make_model
    from uda_jax.weights import Weights, save

    model = make_model(config)
    params, stats = model.init(jax.random.key(seed))
    head = params["head"]["branch_0"]
    head["bias"] = head["bias"].at[3].add(bias)
    options = dict(config.model)
    name = options.pop("name")
    weights = Weights(
        model, params, stats, name, options, 13, "crosscity13", "written", {}, [], None
    )
    save(folder / "network.safetensors", weights, folder)
    return str(folder / "network.safetensors"), params


def start(config_file, workdir, *arguments, env=None):
    """A real `python -m uda_jax.main`, started and not waited for."""
    files = (f"--config={config_file}", f"--workdir={workdir}")
    return _start("uda_jax.main", *files, *arguments, env=env)


def run_two(module, *arguments, env=None) -> list[tuple[int, str, str]]:
    """(exit code, output, errors) of two real processes of one run, on a free port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    both = (f"--coordinator=127.0.0.1:{port}", "--num_processes=2")
    processes = [
        _start(module, *arguments, *both, f"--process_id={number}", env=env)
        for number in range(2)
    ]
    try:
        outputs = [process.communicate(timeout=600) for process in processes]
    finally:
        for process in processes:
            process.kill()
    codes = [process.returncode for process in processes]
    return [(code, *output) for code, output in zip(codes, outputs, strict=True)]


def devices(count):
    """Environment for a process with so many devices."""
    flag = f"--xla_force_host_platform_device_count={count}"
    return {"XLA_FLAGS": f"{os.environ['XLA_FLAGS']} {flag}"}


def _start(module, *arguments, env=None):
    return subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        cwd=ROOT,
        env={**os.environ, "JAX_PLATFORMS": "cpu", **(env or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def write_config(path, config: ConfigDict) -> Path:
    """A config file with exactly these fields."""
    path.write_text(
        "from ml_collections import ConfigDict\n\nfrom uda_jax.models import resnet\n\n"
        f"resnet.BLOCKS.update({resnet.BLOCKS!r})\n\n\ndef get_config():\n"
        f"    return ConfigDict({config.to_dict()!r})\n"
    )
    return path
