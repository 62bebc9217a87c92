r"""Writes the table of the networks into the README, between its markers.

    python scripts/model_table.py

Parameters are counted, FLOPs (a multiplication and an addition are two) are those of
the plain convolutions and products, by XLA's own analysis, for one image of the
published crop; memory is what XLA's CPU compiler plans for the published batch of one
step: weights, activations, gradients and momentum.  Nothing runs.
"""

import os
import time
from pathlib import Path
from typing import NamedTuple
from unittest import mock

# Nothing runs: LLVM need not optimise.  XLA's own passes, which plan memory, stay.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")

import jax
import jax.numpy as jnp
import optax
from markers import replace_block

from uda_jax import losses
from uda_jax.models import create_model

README = Path(__file__).parent.parent / "README.md"
GIGA = 1e9


class Row(NamedTuple):
    """A published network, its crop (height, width) and images per step and domain."""

    label: str
    name: str
    options: dict
    num_classes: int
    crop: tuple[int, int]
    batch: int


ROWS = [
    Row("BiSeNet, TUFL's", "bisenet", {"form": "tufl"}, 13, (640, 1280), 2),
    Row("BiSeNet, SS-ADA's", "bisenet", {"form": "ss_ada"}, 7, (800, 800), 4),
    Row("DeepLabV2-R101, MaxSquare's", "deeplabv2", {"branches": 2}, 19,
        (720, 1280), 1),
    Row("DeepLabV2-R101, ADVENT's", "deeplabv2", {"branches": 4}, 19, (720, 1280), 1),
    Row("DeepLabV2-R101, mmseg's", "deeplabv2", {"form": "mmseg", "branches": 2}, 19,
        (512, 512), 2),
    Row("DAFormer, MiT-B0", "daformer", {"backbone": "mit_b0"}, 19, (512, 512), 2),
    Row("DAFormer, MiT-B5", "daformer", {"backbone": "mit_b5"}, 19, (512, 512), 2),
    Row("SegFormer, MiT-B5", "segformer", {"backbone": "mit_b5"}, 19, (512, 512), 2),
]  # fmt: skip


def measure(row: Row) -> dict[str, float]:
    """Parameters, FLOPs for one image and bytes for one batch."""
    model = create_model(row.name, row.num_classes, **row.options)
    params, batch_stats = jax.eval_shape(model.init, jax.random.key(0))
    optimizer = optax.sgd(0.1, momentum=0.9)
    opt_state = jax.eval_shape(optimizer.init, params)

    def forward(params, batch_stats, image):
        return model.forward(params, batch_stats, image, train=False)[0].logits

    def step(params, batch_stats, opt_state, image, label, key):
        def loss(params):
            prediction, new = model.forward(
                params, batch_stats, image, train=True, rngs={"dropout": key}
            )
            heads = (prediction.logits, *prediction.aux_logits)
            return sum(losses.cross_entropy(head, label) for head in heads), new

        grads, batch_stats_new = jax.grad(loss, has_aux=True)(params)
        updates, opt_state_new = optimizer.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), batch_stats_new, opt_state_new

    def inputs(batch):
        image = jax.ShapeDtypeStruct((batch, *row.crop, 3), jnp.float32)
        label = jax.ShapeDtypeStruct((batch, *row.crop), jnp.uint8)
        key = jax.eval_shape(jax.random.key, 0)
        return (params, batch_stats, image), (
            *(params, batch_stats, opt_state, image, label, key),
        )

    def memory(function, arguments, donate=()):
        compiled = jax.jit(function, donate_argnums=donate).lower(*arguments).compile()
        plan = compiled.memory_analysis()
        return (
            plan.argument_size_in_bytes
            + plan.temp_size_in_bytes
            + plan.output_size_in_bytes
            - plan.alias_size_in_bytes
        )

    def flops(function, arguments):
        # The forms for CPUs compute more than the definition asks for.
        with mock.patch("jax.default_backend", return_value="gpu"):
            lowered = jax.jit(lambda *a: function(*a)).lower(*arguments)
        return lowered.cost_analysis()["flops"]

    # Two images, because BatchNorm behind a global mean cannot train on one.
    ahead, training = inputs(2)
    numbers = {
        "parameters": sum(x.size for x in jax.tree.leaves(params)),
        "forward_flops": flops(forward, ahead) / 2,
        "step_flops": flops(step, training) / 2,
    }
    ahead, training = inputs(row.batch)
    numbers["forward_bytes"] = memory(forward, ahead)
    numbers["step_bytes"] = memory(step, training, donate=(0, 1, 2))
    return numbers


def main() -> None:
    lines = [
        "| network | classes | parameters | crop | GFLOPs: forward | training step | "
        "batch | GiB: forward | training step |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in ROWS:
        start = time.monotonic()
        m = measure(row)
        lines.append(
            f"| {row.label} | {row.num_classes} | {m['parameters']:,} | "
            f"{row.crop[0]} x {row.crop[1]} | {m['forward_flops'] / GIGA:,.0f} | "
            f"{m['step_flops'] / GIGA:,.0f} | {row.batch} | "
            f"{m['forward_bytes'] / 2**30:.1f} | {m['step_bytes'] / 2**30:.1f} |"
        )
        print(lines[-1], f"({time.monotonic() - start:.0f} s)", flush=True)
    replace_block(README, "models", "\n".join(lines))


if __name__ == "__main__":
    main()
