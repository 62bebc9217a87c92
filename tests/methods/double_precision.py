"""A golden step of self-training in double precision: python double_precision.py NAME.

A process of its own, because jax and the library's float32 become float64 in all of it.
In float32 the gradient of the Mix Transformer's patch embeddings amplifies rounding:
the norm that PyTorch recorded is 1e-3 from the one in double precision, and ours 1e-3
to 4e-3, by the vector units of the processor.
"""

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

jax.config.update("jax_enable_x64", True)
jnp.float32 = jnp.float64  # before anything takes it from there

here = Path(__file__).parent
sys.path[:0] = [str(here.parent), str(here)]

import test_self_training as fixture  # noqa: E402

from uda_jax import augment, mixing  # noqa: E402
from uda_jax.models import create_model, segformer  # noqa: E402


def in_double(tree):
    """Its float32 arrays as float64."""
    return jax.tree.map(
        lambda x: np.asarray(x, np.float64) if x.dtype == np.float32 else x, tree
    )


def main(name: str) -> None:
    segformer.check_options = lambda *_, **__: None  # float64 is none of the options
    model = create_model(
        "daformer", 19, backbone="mit_b0", drop_path=0.0, dropout=0.0,
        compute_dtype="float64",
    )  # fmt: skip
    network = fixture.network
    fixture.network = lambda *arguments: in_double(network(*arguments))
    fixture.fix(augment, mixing, setattr)
    method, check = fixture.STEPS[name]
    batch = in_double(fixture.make_batch())
    params, gradients, out = fixture.step(
        model, method(model.forward, 19, **fixture.FIXTURE), batch
    )
    assert {x.dtype for x in jax.tree.leaves(gradients)} == {np.dtype("float64")}
    check(fixture.read_golden(), out)
    fixture.check_gradients(name, fixture.read_golden(), model, params, gradients)


if __name__ == "__main__":
    main(sys.argv[1])
