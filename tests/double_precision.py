"""Tests in double precision: `run_in_double(test module, function, arguments)`.

A process of its own, because jax and the library's float32 become float64 in all of it.
In float32 a Mix Transformer amplifies rounding: of its maps' single values PyTorch's
own are up to 0.9e-5 of the deviation away from those in double precision, ours up to
1.5e-5; of the gradient's norm in DAFormer's step PyTorch's is 1e-3 away, ours 1e-3 to
3e-3, by the vector units of the processor.
"""

import importlib
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

HERE = Path(__file__).parent


def run_in_double(module: str, function: str, *arguments: str) -> None:
    """Fails as the function does, which is called in another process."""
    command = [sys.executable, __file__, module, function, *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def in_double(tree):
    """Its float32 arrays as float64."""
    return jax.tree.map(
        lambda x: np.asarray(x, np.float64) if x.dtype == np.float32 else x, tree
    )


def main(module: str, function: str, *arguments: str) -> None:
    jax.config.update("jax_enable_x64", True)
    jnp.float32 = jnp.float64  # before anything takes it from there
    sys.path[:0] = [str(HERE / "methods"), str(HERE / "models")]
    import conftest  # noqa: F401 (XLA's flags)

    from uda_jax.models import segformer

    segformer.check_options = lambda *_, **__: None  # float64 is none of the options
    getattr(importlib.import_module(module), function)(*arguments)


if __name__ == "__main__":
    main(*sys.argv[1:])
