"""`benchmark.py memory`: what a full-size step of DAFormer needs, without a device.

XLA compiles the train step of configs/daformer_gta5.py (MiT-B5, 512 x 512, two images
of each domain) for this machine's processor and says how many bytes it would hold and
how many operations it counts; nothing is run.  On an accelerator the compiler lays out
buffers otherwise, so that this is an estimate.  Each form is compiled in a process of
its own, in some minutes.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from unittest import mock

from measuring import machine, record

ROOT = Path(__file__).parent.parent
# remat, compute_dtype.
FORMS = {
    "float32": (False, "float32"),
    "float32, remat": (True, "float32"),
    "bfloat16": (False, "bfloat16"),
    "bfloat16, remat": (True, "bfloat16"),
}
GPU_TFLOPS = 13.4  # float32 peak of the RTX 2080 Ti, which the original was trained on


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--backbone", default="mit_b5")
    parser.add_argument("--form", choices=FORMS, help="this one alone, as JSON")
    parser.add_argument("--dry", action="store_true", help="print, write nothing")


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
    start = time.perf_counter()
    # The convolutions of an accelerator, not their forms for a CPU.
    with mock.patch("jax.default_backend", return_value="gpu"):
        lowered = train.make_train_step(method, optimizer).lower(state, batch)
    compiled = lowered.compile()
    memory, cost = compiled.memory_analysis(), compiled.cost_analysis()
    held = memory.argument_size_in_bytes + memory.temp_size_in_bytes
    # What is given back lies where the consumed state was, but for the alias.
    held += memory.output_size_in_bytes - memory.alias_size_in_bytes
    return {
        "state_gib": memory.argument_size_in_bytes / 2**30,
        "temporary_gib": memory.temp_size_in_bytes / 2**30,
        "held_gib": held / 2**30,
        "tflop": cost["flops"] / 1e12,
        "compile_s": time.perf_counter() - start,
    }


def memory_benchmark(arguments: argparse.Namespace) -> None:
    """Compiles every form and writes the table."""
    if arguments.form:
        print(json.dumps(analyse(arguments.form, arguments.backbone)))
        return
    rows = {}
    for form in FORMS:
        command = [sys.executable, str(ROOT / "scripts/benchmark.py"), "memory"]
        command += [f"--form={form}", f"--backbone={arguments.backbone}"]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            sys.exit(done.stderr)
        rows[form] = json.loads(done.stdout.splitlines()[-1])
        print(form, rows[form], file=sys.stderr)
    lines = [
        "| form | state | temporary | held at once | TFLOP | at a 2080 Ti's peak |",
        "|---|---|---|---|---|---|",
    ]
    for form, row in rows.items():
        at_peak = f"{row['tflop'] / GPU_TFLOPS:.2f} s" if "float32" in form else "–"
        lines.append(
            f"| {form} | {row['state_gib']:.2f} GiB | {row['temporary_gib']:.2f} GiB | "
            f"{row['held_gib']:.2f} GiB | {row['tflop']:.2f} | {at_peak} |"
        )
    table = "\n".join(lines)
    if arguments.dry:
        print(table)
        return
    about = machine("jax", "jaxlib", "flax", "optax")
    text = f"{arguments.backbone}, 512x512, batch 2 of each domain.\n\n{table}"
    record("memory", text, rows, about)
