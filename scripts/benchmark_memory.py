"""`benchmark.py memory`: what a full-size step of DAFormer needs, without a device.

XLA's compiler for NVIDIA's cards compiles the train step of configs/daformer_gta5.py
(MiT-B5, 512 x 512, two images of each domain) for the card of rtx_2080_ti.txt and says
how many bytes it lays out; nothing is run and no card is needed, but the extra "gpu",
in which that compiler is.  Not counted is what the card's libraries take for
themselves, such as a convolution's workspace.  The operations are those of the program
before it is compiled.  Each form is compiled in a process of its own, in ten minutes of
a core; with --forms the others' rows stay, if the same compiler made them: compile
all again after a change of the step.
"""

import argparse
import json
import os
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any
from unittest import mock

from measuring import machine, record, recorded

from uda_jax.errors import UserError

ROOT = Path(__file__).parent.parent
CARD = Path(__file__).parent / "rtx_2080_ti.txt"
CARD_TFLOPS = 13.4  # its float32 peak
# remat, compute_dtype.
FORMS = {
    "float32": (False, "float32"),
    "float32, remat": (True, "float32"),
    "bfloat16": (False, "bfloat16"),
    "bfloat16, remat": (True, "bfloat16"),
}
# What a row depends on, beside the code.
VERSIONS = ("jax", "jaxlib", "jax-cuda13-plugin", "backbone")
# Without a card nothing can be tried out, and the speed of its code does not matter.
XLA_FLAGS = (
    "--xla_gpu_autotune_level=0 --xla_backend_optimization_level=0 "
    "--xla_llvm_disable_expensive_passes=true"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--forms", nargs="+", choices=FORMS, default=list(FORMS))
    parser.add_argument("--backbone", default="mit_b5")
    parser.add_argument("--analyse", choices=FORMS, help="print this form's row alone")
    parser.add_argument("--dry", action="store_true", help="print, write nothing")


def card() -> Any:
    """The card's place, for shapes that are compiled for it."""
    from jax.experimental import topologies
    from jax.sharding import SingleDeviceSharding

    description = topologies.get_topology_desc(
        "2080ti", "cuda", topology="1x1x1", target_config=CARD.read_text()
    )
    return SingleDeviceSharding(description.devices[0])


def analyse(form: str, backbone: str) -> dict[str, float]:
    """Bytes and operations of the compiled step."""
    import time

    import jax
    import jax.numpy as jnp

    from uda_jax import runs, train
    from uda_jax.config_files import load_config
    from uda_jax.factories import build
    from uda_jax.methods import METHODS
    from uda_jax.optimizers import make_optimizer

    config = load_config(str(ROOT / "configs/daformer_gta5.py"), [])
    config.model.backbone = backbone
    config.remat, config.compute_dtype = FORMS[form]
    model = runs.make_model(config)
    optimizer, _ = make_optimizer(
        config.optimizer, config.schedule, steps=config.steps, model=model
    )
    method = build(METHODS, "method", config.method, model.forward, 19)
    size = (config.batch_size, *config.data.source.crop_size)
    image = jax.ShapeDtypeStruct((*size, 3), jnp.uint8)
    label = jax.ShapeDtypeStruct(size, jnp.uint8)
    batch = {"source": {"image": image, "label": label}, "target": {"image": image}}
    state = jax.eval_shape(
        lambda: train.init_state(model, method, optimizer, 0, batch=batch)[0]
    )
    place = card()
    there = lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place)
    step = train.make_train_step(method, optimizer)
    start = time.perf_counter()
    # The convolutions of an accelerator, not their forms for a CPU.
    with mock.patch("jax.default_backend", return_value="gpu"):
        flops = step.lower(state, batch).cost_analysis()["flops"]
        lowered = step.lower(*jax.tree.map(there, (state, batch)))
    memory = lowered.compile().memory_analysis()
    held = memory.argument_size_in_bytes + memory.temp_size_in_bytes
    # What is given back lies where the consumed state was, but for the alias.
    held += memory.output_size_in_bytes - memory.alias_size_in_bytes
    return {
        "state_gib": memory.argument_size_in_bytes / 2**30,
        "temporary_gib": memory.temp_size_in_bytes / 2**30,
        "held_gib": held / 2**30,
        "tflop": flops / 1e12,
        "compile_s": time.perf_counter() - start,
    }


def compile_apart(form: str, backbone: str) -> dict[str, float]:
    """`analyse` in a process of its own."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts/benchmark.py"), "memory",
         f"--analyse={form}", f"--backbone={backbone}"],
        capture_output=True, text=True,
        env=os.environ | {"XLA_FLAGS": XLA_FLAGS, "JAX_PLATFORMS": "cpu"},
    )  # fmt: skip
    if done.returncode:
        sys.exit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def compiler() -> dict[str, str]:
    """The versions that a row depends on.

    Raises:
      UserError: there is no compiler for NVIDIA's cards.
    """
    about = machine("jax", "jaxlib")
    try:
        about |= {"jax-cuda13-plugin": version("jax-cuda13-plugin")}
    except PackageNotFoundError:
        raise UserError(
            "the compiler for NVIDIA's cards is not installed, which needs no card: "
            'pip install -e ".[gpu]" first.'
        ) from None
    return about


def memory_benchmark(arguments: argparse.Namespace) -> None:
    """Compiles the forms and writes the table."""
    if arguments.analyse:
        print(json.dumps(analyse(arguments.analyse, arguments.backbone)))
        return
    about = compiler() | {"backbone": arguments.backbone}
    before = recorded("memory") or {"machine": {}, "rows": {}}
    same = all(before["machine"].get(k) == about[k] for k in VERSIONS)
    rows = dict(before["rows"]) if same else {}
    for form in arguments.forms:
        rows[form] = compile_apart(form, arguments.backbone)
        print(form, rows[form], file=sys.stderr)
        # At once: the next form takes ten minutes and may fail.
        text = table({form: rows[form] for form in FORMS if form in rows})
        if arguments.dry:
            print(text)
        else:
            record("memory", f"for an RTX 2080 Ti.\n\n{text}", rows, about)


def table(rows: dict[str, dict[str, float]]) -> str:
    """Markdown of the forms' rows."""
    lines = [
        "| form | state | temporary | held at once | TFLOP | at the card's peak |",
        "|---|---|---|---|---|---|",
    ]
    for form, row in rows.items():
        at_peak = f"{row['tflop'] / CARD_TFLOPS:.2f} s" if "float32" in form else "–"
        lines.append(
            f"| {form} | {row['state_gib']:.2f} GiB | {row['temporary_gib']:.2f} GiB | "
            f"{row['held_gib']:.2f} GiB | {row['tflop']:.2f} | {at_peak} |"
        )
    return "\n".join(lines)
