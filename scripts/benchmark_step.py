"""`benchmark.py step`: the networks on this machine's CPU, in JAX and in PyTorch.

It times the forward pass (evaluation) and a training step (forward, mean cross-entropy
over the heads, backward, SGD with momentum) of each network against the PyTorch form of
it in tests/torch_forms, float32.  JAX and four forms of PyTorch (memory format
contiguous or channels_last, malloc as uda_jax sets it or as it comes) are processes on
the same cores; they take turns in blocks of steps, and a ratio is that of two blocks of
one round, so that whatever else slows the machine slows both.  PyTorch's best form
counts.
"""

import argparse
import multiprocessing
import os
import resource
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path

from measuring import machine, parse_size, record, take_turns

from uda_jax.errors import UserError

ROOT = Path(__file__).parent.parent
WORK = ("forward", "step")
LEARNING_RATE, MOMENTUM = 1e-3, 0.9

# name -> (num_classes, options of create_model, class in tests/torch_forms)
NETWORKS = {
    "bisenet": (13, {"form": "tufl"}, "bisenet.BiSeNet"),
    "deeplabv2": (
        19,
        {"branches": 4, "affine": "frozen", "input_form": "imagenet"},
        "deeplabv2.DeepLabV2",
    ),
    "daformer": (19, {"backbone": "mit_b0"}, "daformer.DAFormer"),
}
SIZES = {"bisenet": ("128x256", "256x512")}  # the others: 128x256

# Keeps freed memory, as uda_jax's commands do.
MALLOC = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(2**31 - 1),
    "MALLOC_TOP_PAD_": str(64 * 2**20),
    "MALLOC_ARENA_MAX": "1",
}
# name -> (PyTorch's memory format, environment)
CONTESTANTS = {
    "jax": ("", MALLOC),
    "contiguous": ("contiguous", MALLOC),
    "channels_last": ("channels_last", MALLOC),
    "contiguous, plain malloc": ("contiguous", {}),
    "channels_last, plain malloc": ("channels_last", {}),
}


def jax_runs(network: str, size: tuple[int, int], batch: int) -> dict[str, Callable]:
    """One call of each kind of work in JAX, compiled."""
    import jax
    import jax.numpy as jnp
    import optax

    from uda_jax.losses import cross_entropy
    from uda_jax.models import create_model

    num_classes, options, _ = NETWORKS[network]
    model = create_model(network, num_classes, **options)
    params, batch_stats = model.init(jax.random.key(0))
    optimizer = optax.sgd(LEARNING_RATE, momentum=MOMENTUM)
    image = jax.random.normal(jax.random.key(1), (batch, *size, 3))
    label = jax.random.randint(jax.random.key(2), (batch, *size), 0, num_classes)

    @jax.jit
    def evaluate(params, batch_stats, image):
        return model.forward(params, batch_stats, image, train=False)[0]

    def train(state, image, label, number):
        params, batch_stats, opt_state = state

        def loss(params):
            key = jax.random.fold_in(jax.random.key(3), number)
            prediction, new = model.forward(
                params, batch_stats, image, train=True, rngs={"dropout": key}
            )
            heads = (prediction.logits, *prediction.aux_logits)
            losses = [cross_entropy(z, label, normaliser="valid") for z in heads]
            return jnp.mean(jnp.stack(losses)), new

        (value, new), grads = jax.value_and_grad(loss, has_aux=True)(params)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return (optax.apply_updates(params, updates), new, opt_state), value

    train = jax.jit(train, donate_argnums=0)
    state = (params, batch_stats, optimizer.init(params))
    number = 0

    def forward():
        prediction = evaluate(state[0], state[1], image)
        jax.block_until_ready((prediction.logits, prediction.aux_logits))

    def step():
        nonlocal state, number
        state, value = train(state, image, label, number)
        number += 1
        jax.block_until_ready((state, value))

    return {"forward": forward, "step": step}


def torch_runs(
    network: str, size: tuple[int, int], batch: int, memory_format: str
) -> dict[str, Callable]:
    """The same in PyTorch."""
    import importlib

    import torch
    import torch.nn.functional as F

    sys.path.insert(0, str(ROOT / "tests"))
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    torch.set_flush_denormal(True)  # as XLA does
    torch.manual_seed(0)
    num_classes, _, form = NETWORKS[network]
    module, name = form.split(".")
    net = getattr(importlib.import_module(f"torch_forms.{module}"), name)(num_classes)
    image = torch.randn(batch, 3, *size)
    label = torch.randint(0, num_classes, (batch, *size))
    if memory_format == "channels_last":
        net = net.to(memory_format=torch.channels_last)
        image = image.contiguous(memory_format=torch.channels_last)
    trained = [p for p in net.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=LEARNING_RATE, momentum=MOMENTUM)

    def forward():
        net.eval()
        with torch.inference_mode():
            net(image)

    def step():
        net.train()
        losses = [F.cross_entropy(z, label) for z in net(image)]
        optimizer.zero_grad()
        (sum(losses) / len(losses)).backward()
        optimizer.step()

    return {"forward": forward, "step": step}


def contestant(pipe, form: str, network: str, size: tuple[int, int], batch: int):
    """A process that runs blocks of work when told to, and says how long each took.

    It gets (kind of work, how often) and answers (wall, CPU) in ms for one; None ends
    it with its peak memory in MiB.
    """
    if form:
        runs = torch_runs(network, size, batch, form)
    else:
        runs = jax_runs(network, size, batch)
    for work in WORK:  # compilation, first touches of memory
        runs[work]()
        runs[work]()
    pipe.send("ready")
    while order := pipe.recv():
        work, count = order
        wall, cpu = time.perf_counter(), time.process_time()
        for _ in range(count):
            runs[work]()
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        pipe.send((1000 * wall / count, 1000 * cpu / count))
    pipe.send(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def compare(
    network: str, size: tuple[int, int], batch: int, rounds: int, seconds: float
) -> dict:
    """Times in ms, [rounds] of each work and contestant, and peak memory in MiB."""
    context = multiprocessing.get_context("spawn")
    pipes, processes = {}, []
    for name, (form, environment) in CONTESTANTS.items():
        pipes[name], end = context.Pipe()
        arguments = (end, form, network, size, batch)
        for variable in MALLOC:  # read by the child's C library when it starts
            os.environ.pop(variable, None)
        os.environ.update(environment)
        processes.append(context.Process(target=contestant, args=arguments))
        processes[-1].daemon = True
        processes[-1].start()
        end.close()
        try:
            pipes[name].recv()
        except EOFError:
            raise UserError(
                f"The {name} process of {network} stopped; its message is above."
            ) from None

    names = list(CONTESTANTS)

    def block(name, work, count):
        pipes[name].send((work, count))
        return pipes[name].recv()

    wall: dict[str, dict] = {work: {} for work in WORK}
    cpu: dict[str, dict] = {work: {} for work in WORK}
    for work in WORK:
        count = max(1, round(1000 * seconds / block("jax", work, 2)[0]))
        turns = take_turns(names, rounds, partial(block, work=work, count=count))
        for name, times in turns.items():
            wall[work][name], cpu[work][name] = zip(*times, strict=True)
    memory = {}
    for name, process in zip(names, processes, strict=True):
        pipes[name].send(None)
        memory[name] = pipes[name].recv()
        process.join()
        pipes[name].close()
    return {"wall_ms": wall, "cpu_ms": cpu, "memory_mib": memory}


def summarise(result: dict, work: str) -> dict:
    """Medians, and the ratio of the wall times round by round: median, min, max."""
    wall, cpu = result["wall_ms"][work], result["cpu_ms"][work]
    best = min(tuple(CONTESTANTS)[1:], key=lambda name: statistics.median(wall[name]))
    ratios = [a / b for a, b in zip(wall["jax"], wall[best], strict=True)]
    return {
        "jax_ms": statistics.median(wall["jax"]),
        "torch_ms": statistics.median(wall[best]),
        "torch_format": best,
        "ratio": statistics.median(ratios),
        "ratio_min": min(ratios),
        "ratio_max": max(ratios),
        "cpu_ratio": statistics.median(
            a / b for a, b in zip(cpu["jax"], cpu[best], strict=True)
        ),
        "jax_mib": result["memory_mib"]["jax"],
        "torch_mib": result["memory_mib"][best],
    }


def table(rows: list[dict]) -> str:
    """Markdown."""
    lines = [
        "| network, size | work | JAX | PyTorch | format | ratio (min to max) "
        "| ratio of CPU time | peak memory JAX / PyTorch |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        lines.append(
            f"| {row['network']} {row['size']}, batch {row['batch']} | {row['work']} "
            f"| {row['jax_ms']:.0f} ms | {row['torch_ms']:.0f} ms "
            f"| {row['torch_format']} "
            f"| {row['ratio']:.2f} ({row['ratio_min']:.2f} to {row['ratio_max']:.2f}) "
            f"| {row['cpu_ratio']:.2f} "
            f"| {row['jax_mib']:.0f} / {row['torch_mib']:.0f} MiB |"
        )
    return "\n".join(lines)


def step(arguments: argparse.Namespace) -> None:
    """The command `step`."""
    try:
        version("torch")
    except ModuleNotFoundError:
        raise UserError(
            "The comparison needs PyTorch, which is not installed: "
            'run pip install -e ".[bench]".'
        ) from None
    for size in arguments.size or ():
        parse_size(size)
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < arguments.cores:
        raise UserError(
            f"--cores is {arguments.cores}, but this process may use {len(cores)}: "
            "choose at most that."
        )
    os.sched_setaffinity(0, cores[: arguments.cores])
    os.environ["JAX_PLATFORMS"] = "cpu"
    rows = []
    for network in arguments.networks:
        for size in arguments.size or SIZES.get(network, ("128x256",)):
            shape = parse_size(size)
            result = compare(
                network, shape, arguments.batch, arguments.rounds, arguments.seconds
            )
            about = {"network": network, "size": size, "batch": arguments.batch}
            for work in WORK:
                rows.append({**about, "work": work, **summarise(result, work)})
                rows[-1]["rounds_ms"] = result["wall_ms"][work]
                print(table(rows).splitlines()[-1], flush=True)
    if not arguments.dry:
        about = machine("jax", "jaxlib", "flax", "torch")
        record("step", f"{arguments.rounds} rounds.\n\n{table(rows)}", rows, about)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.add_argument(
        "--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS)
    )
    parser.add_argument("--size", nargs="+", metavar="HxW", help="default: 128x256 ...")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=2.0, help="length of a block")
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--dry", action="store_true", help="print only")
