"""What converting a large file costs."""

import os
import subprocess
import sys
import tracemalloc

import jax
import numpy as np
import pytest

from uda_jax import convert, torch_files, weights
from uda_jax.factories import build
from uda_jax.models import create_model
from uda_jax.weights import NETWORKS


def test_a_large_file_is_in_memory_only_once(tmp_path):
    model = create_model("bisenet", 13)
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    leaves = jax.tree.map(lambda x: np.zeros(x.shape, np.float32), shapes)
    tensors = convert.to_torch(*leaves, model.torch.to_torch)
    path = torch_files.write(tmp_path / "x.pth", tensors)
    size = os.path.getsize(path)
    del leaves, tensors
    tracemalloc.start()
    try:
        saved = torch_files.read(path)
        _, peak = tracemalloc.get_traced_memory()
        assert peak < 0.1 * size
        del saved
        found = weights.load_weights_file(path)
        _, peak = tracemalloc.get_traced_memory()
        assert size * 0.99 < peak < 1.25 * size
        weights.save(tmp_path / "x.safetensors", found, path)
        _, peak = tracemalloc.get_traced_memory()
        assert peak < 1.25 * size
    finally:
        tracemalloc.stop()


MEASURED = """
import re, sys, time
from uda_jax.convert_command import main
start = time.monotonic()
main(sys.argv[1:])
print(time.monotonic() - start)
# Not ru_maxrss, which starts with the memory of the process that forked this one.
print(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])
"""


@pytest.mark.slow
def test_a_large_file_needs_less_than_a_gigabyte(tmp_path):
    model = build(NETWORKS, "model", {"name": "deeplabv2"}, 19)
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    leaves = jax.tree.map(lambda x: np.full(x.shape, 1e-3, np.float32), shapes)
    path = tmp_path / "x.pth"
    torch_files.write(path, convert.to_torch(*leaves, model.torch.to_torch))
    size = path.stat().st_size
    assert size > 170e6
    arguments = [str(path), str(tmp_path / "x.safetensors"), "--branches=4"]
    result = subprocess.run(
        [sys.executable, "-c", MEASURED, *arguments],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    seconds, kilobytes = map(float, result.stdout.split()[-2:])
    print(f"{size / 1e6:.0f} MB: {seconds:.1f} s, {kilobytes / 1e3:.0f} MB at most")
    assert kilobytes * 1024 < 1e9
