"""`benchmark.py methods`: what a train step of each method costs beside source-only.

One network, batch and size for all; each method with its published options, as a run
builds it: make_optimizer, make_train_step and the method's own file.  The compiled
steps take turns in blocks, and a ratio is that of two blocks of one round.  Beside the
times stand their reasons: the floating-point operations of the compiled step, counted
by XLA, and the images that went through each network while it was traced.

The programs of benchmark_mixing.py take turns with them: they show what mixing and the
frozen network cost in TUFL's stage two.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from benchmark_mixing import (
    ADAPTIVE,
    PARTIAL,
    STAGE_TWO,
    random_batch,
    shares,
    shares_text,
    with_ready,
)
from measuring import machine, parse_size, record, take_turns

from uda_jax.benchmark_rows import SMALL_DEEPLAB
from uda_jax.errors import UserError
from uda_jax.program import keep_freed_memory

# name -> (for people, the network's row in a config, num_classes)
NETWORKS = {
    "small": (
        "DeepLabV2-R18 of a quarter's width",
        SMALL_DEEPLAB,
        13,
    ),
    "published": (
        "DeepLabV2-R101",
        {
            "name": "deeplabv2",
            "backbone": "resnet101",
            "branches": 4,
            "multi_level": True,
            "affine": "frozen",
            "input_form": "caffe_bgr",
        },
        19,
    ),
}
BASELINE = "source-only"
METHODS = {
    BASELINE: {"name": "source_only", "view": "none"},
    "MinEnt": {"name": "minent"},
    "MaxSquare": {"name": "maxsquare"},
    "MaxSquare IW": {"name": "maxsquare", "image_ratio": 0.2},
    "MaxSquare IW, multi-level": {
        "name": "maxsquare",
        "image_ratio": 0.2,
        "multi_level": True,
    },
    "AdaptSegNet": {"name": "advent", "signal": "softmax"},
    "ADVENT": {"name": "advent"},
    "TUFL": {"name": "tufl"},
    STAGE_TWO: {
        **ADAPTIVE,
        "mix": {
            "name": "single",
            "long_tail_probability": 0.3,
            "long_tail_choice": "thresholds",
        },
    },
    "TUFL stage two, dual soft": {"name": "tufl", "mix": {"name": "dual_soft"}},
}
OPTIMIZER = {
    "name": "sgd",
    "learning_rate": 2.5e-4,
    "momentum": 0.9,
    "weight_decay": 5e-4,
    "head_multiplier": 10.0,
}
SCHEDULE = {"name": "poly", "power": 0.9}
DISCRIMINATOR = {
    "optimizer": {
        "name": "adam",
        "learning_rate": 1e-4,
        "beta1": 0.9,
        "beta2": 0.99,
        "weight_decay": 0.0,
    },
    "schedule": SCHEDULE,
}
STEPS = 250_000  # of the schedule


class Program(NamedTuple):
    """A method's compiled train step.

    Attributes:
      step: runs it once, from the state that the last run left.
      flops: floating-point operations of a step.
      images: network -> images of each of its forward passes, in order.
    """

    step: Callable[[], None]
    flops: float
    images: Mapping[str, list[int]]


def compile_method(
    row: Mapping[str, Any], network: str, size: tuple[int, int], batch: int
) -> Program:
    """The train step of a method's row on this machine's first device.

    Args:
      row: name and options, as in a config.
      network: one of `NETWORKS`.
      size: (height, width) of both domains.
      batch: images of each domain.
    """
    import flax.linen as nn
    import jax

    from uda_jax import methods
    from uda_jax.factories import build
    from uda_jax.methods.method import Network
    from uda_jax.models import create_model
    from uda_jax.models.model import Prediction
    from uda_jax.optimizers import make_optimizer
    from uda_jax.train import init_state, make_train_step

    _, options, num_classes = NETWORKS[network]
    model = create_model(**options, num_classes=num_classes)
    with with_ready():
        method = build(methods.METHODS, "method", row, model.forward, num_classes)
    data = random_batch(size, batch, num_classes)
    key = jax.random.key(0)
    network_shapes = Network(*jax.eval_shape(model.init, key))
    extra, _ = jax.eval_shape(lambda k, n: method.init(k, n, data), key, network_shapes)
    adversarial = "discriminator" in extra
    optimizer, _ = make_optimizer(
        OPTIMIZER,
        SCHEDULE,
        steps=STEPS,
        model=model,
        discriminator=DISCRIMINATOR if adversarial else None,
    )
    state, _ = init_state(model, method, optimizer, seed=0, batch=data)
    images: dict[str, list[int]] = {"segmentor": [], "discriminator": []}

    def count(call, args, kwargs, context):
        out = call(*args, **kwargs)
        if not context.module.path and context.method_name == "__call__":
            seen = "segmentor" if isinstance(out, Prediction) else "discriminator"
            images[seen].append(args[0].shape[0])
        return out

    with nn.intercept_methods(count):
        lowered = make_train_step(method, optimizer).lower(state, data)
    compiled = lowered.compile()

    def step():
        nonlocal state
        state, metrics = compiled(state, data)
        jax.block_until_ready((state, metrics))

    return Program(step, compiled.cost_analysis()["flops"], images)


def measure(
    programs: Mapping[str, Program], rounds: int, seconds: float
) -> dict[str, list[float]]:
    """Wall ms of a step, [rounds] for each program, in turns of about `seconds`."""

    def block(name, count):
        start = time.perf_counter()
        for _ in range(count):
            programs[name].step()
        return 1000 * (time.perf_counter() - start) / count

    counts = {}
    for name in programs:
        block(name, 1)  # first touches of memory
        counts[name] = max(1, round(1000 * seconds / block(name, 1)))
    return take_turns(list(programs), rounds, lambda name: block(name, counts[name]))


def summarise(programs: Mapping[str, Program], times: dict[str, list[float]]) -> list:
    """A row for each method; ratios of times are of the same round."""
    rows = []
    for name, program in programs.items():
        ratios = [a / b for a, b in zip(times[name], times[BASELINE], strict=True)]
        rows.append(
            {
                "method": name,
                "ms": statistics.median(times[name]),
                "ratio": statistics.median(ratios),
                "ratio_min": min(ratios),
                "ratio_max": max(ratios),
                "gflops": program.flops / 1e9,
                "flops_ratio": program.flops / programs[BASELINE].flops,
                "images": dict(program.images),
                "rounds_ms": times[name],
            }
        )
    return rows


def table(rows: list[dict]) -> str:
    """Markdown."""
    lines = [
        "| method | step | / source-only (min to max) | FLOPs / source-only "
        "| segmentor sees | discriminators see |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        lines.append(
            f"| {row['method']} | {row['ms']:.0f} ms "
            f"| {row['ratio']:.2f} ({row['ratio_min']:.2f} to {row['ratio_max']:.2f}) "
            f"| {row['flops_ratio']:.2f} | {_passes(row['images']['segmentor'])} "
            f"| {_passes(row['images']['discriminator'])} |"
        )
    return "\n".join(lines)


def _passes(images: list[int]) -> str:
    """[4, 4] -> "2 x 4 images"."""
    sizes = dict.fromkeys(images)
    return " + ".join(f"{images.count(n)} x {n} images" for n in sizes) or "–"


def methods(arguments: argparse.Namespace) -> None:
    """The command `methods`."""
    for name in ("batch", "rounds"):
        if getattr(arguments, name) < 1:
            raise UserError(f"--{name} must be 1 or more.")
    if arguments.seconds <= 0:
        raise UserError("--seconds must be above 0.")
    size = parse_size(arguments.size)
    keep_freed_memory()
    programs = {}
    for name, row in {**METHODS, **PARTIAL}.items():
        start = time.perf_counter()
        programs[name] = compile_method(row, arguments.network, size, arguments.batch)
        seconds = time.perf_counter() - start
        print(f"{name}: compiled in {seconds:.0f} s", flush=True)
    times = measure(programs, arguments.rounds, arguments.seconds)
    rows = summarise(programs, times)
    about = (
        f"{NETWORKS[arguments.network][0]}, {arguments.size}, batch {arguments.batch} "
        f"of each domain; {arguments.rounds} rounds; a step of {BASELINE} is "
        f"{rows[0]['gflops']:.1f} GFLOP."
    )
    shown = table([row for row in rows if row["method"] in METHODS])
    text = f"{about}\n\n{shown}\n\n{shares_text(shares(times))}"
    print(text)
    if not arguments.dry:
        record("methods", text, rows, machine("jax", "jaxlib", "flax", "optax"))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.add_argument(
        "--network",
        choices=NETWORKS,
        default="small",
        help="DeepLabV2: ResNet-18 of a quarter's width, or the published ResNet-101",
    )
    parser.add_argument("--size", default="96x192", metavar="HxW")
    parser.add_argument("--batch", type=int, default=4, help="images of each domain")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=2.0, help="length of a block")
    parser.add_argument("--dry", action="store_true", help="print only")
