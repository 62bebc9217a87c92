r"""The command `python -m uda_jax.convert IN OUT`.

    python -m uda_jax.convert model.pth model.safetensors --label_space=cityscapes19
    python -m uda_jax.convert gta2cs.pth maxsquare.safetensors --branches=2
    python -m uda_jax.convert runs/daformer model.pth
    python -m uda_jax.convert runs/advent D_main.pth --part=discriminator/main

IN is a file of PyTorch's, a converted file or a run's workdir.  OUT is a converted file
(.safetensors, with a .json beside it), or a file for the original program (.pth).
Options of the network, such as --branches=2, are those of its factory; a discriminator
has --naming, "advent" (the default) or "adaptsegnet": whose names its file has.
"""

import argparse
import ast
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError

from uda_jax.errors import UserError


def main(argv: Sequence[str] | None = None) -> None:
    arguments, options = parse(argv)
    start = time.monotonic()
    output = Path(arguments.output)
    check_output(output)
    # One small forward pass: compiling it well would take longer than running it.
    os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")
    from uda_jax import convert, torch_files, weights

    for name in options:
        if name in weights.RUNNING:
            raise UserError(
                f"--{name} says how a network is run, and a file keeps what it is: "
                "leave it out."
            )
    found = weights.load_weights_file(
        arguments.input,
        model=arguments.model,
        num_classes=arguments.num_classes,
        label_space=arguments.label_space,
        copy=arguments.copy,
        part=arguments.part,
        new_heads=arguments.new_heads,
        seed=arguments.seed,
        **options,
    )
    for rule, names in found.dropped.items():
        print(f"left out, {rule}: {weights.abridged(names)}")
    if found.initial:
        print(f"new, seed {arguments.seed}: {weights.abridged(found.initial)}")
    print(self_check(arguments.input, found))
    try:
        if output.suffix == ".pth":
            tensors = convert.to_torch(
                found.params, found.batch_stats, found.model.torch.to_torch
            )
            if arguments.counters:
                tensors = with_counters(tensors)
            torch_files.write(output, tensors)
            count, numbers = len(tensors), sum(t.size for t in tensors.values())
        else:
            count, numbers = weights.save(output, found, arguments.input)
    except (OSError, SafetensorError) as error:
        raise UserError(
            f"{output} cannot be written ({error}): make room, or choose another name."
        ) from error
    print(
        f"{output}: {found.name} with {found.num_classes} classes from {found.kind}, "
        f"{count} tensors, {numbers:,} numbers, "
        f"{sum(map(len, found.dropped.values()))} left out, {len(found.initial)} new, "
        f"{time.monotonic() - start:.1f} s"
    )


def parse(argv: Sequence[str] | None) -> tuple[argparse.Namespace, dict[str, Any]]:
    """The command line, and the options of the network apart."""
    parser = argparse.ArgumentParser(
        prog="python -m uda_jax.convert",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("input", metavar="IN", help="checkpoint, converted file or workdir of a run")
    add("output", metavar="OUT", help="new file: .safetensors, or .pth for PyTorch")
    add("--model", default="", help="its network, where the file does not show it")
    add("--num_classes", type=int, default=0, help="as --model")
    add("--label_space", default="", help="what the classes are, such as crosscity13")
    add("--copy", choices=("student", "teacher", "imagenet"), default="student",
        help="which network of a self-training checkpoint (default: %(default)s, "
        "which the originals evaluate)")  # fmt: skip
    add("--part", default="", help="of a run: discriminator/main, discriminator/aux")
    add("--new_heads", action="store_true",
        help="what the file lacks outside of its backbone is new")  # fmt: skip
    add("--seed", type=int, default=0, help="of those values (default: %(default)s)")
    add("--counters", action="store_true",
        help="give a .pth BatchNorm's num_batches_tracked too, as newer PyTorch saves "
        "them")  # fmt: skip
    add("--debug", action="store_true", help="show tracebacks of mistakes")
    arguments, rest = parser.parse_known_args(argv)
    options = {}
    for option in rest:
        name, equals, text = option.partition("=")
        if not name.startswith("--") or not equals:
            raise UserError(f'"{option}" is no option: write --name=value, see --help.')
        try:
            options[name[2:]] = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            options[name[2:]] = text
    return arguments, options


def check_output(output: Path) -> None:
    """What can be wrong with OUT is said before the work is done."""
    if output.suffix not in (".safetensors", ".pth"):
        raise UserError(
            f"{output} must end in .safetensors (for this library) or .pth (for "
            "PyTorch)."
        )
    files = [output]
    if output.suffix == ".safetensors":
        files.append(output.with_suffix(".json"))
    for file in files:
        if os.path.lexists(file):
            raise UserError(f"{file} exists already: choose another name or remove it.")
    folder = output.absolute().parent
    while not os.path.lexists(folder):
        folder = folder.parent
    if not folder.is_dir():
        raise UserError(
            f"{output} cannot be written, because {folder} is no folder: choose "
            "another name."
        )
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UserError(
            f"{output} cannot be written, because {folder} is read-only: choose "
            "another folder."
        )


def self_check(path: str, found: Any) -> str:
    """Statistics of the logits of a fixed image, 64x128; of scores, if it gives those.

    Raises:
      UserError: they are not finite.
    """
    from uda_jax.loaded_model import ready
    from uda_jax.models import MODELS

    channels = 3 if found.name in MODELS else found.num_classes
    i = np.arange(64 * 128 * channels).reshape(1, 64, 128, channels)
    image = 0.5 + 0.5 * np.sin(0.02 * i) * np.cos(0.0007 * i)
    if found.name in MODELS:
        prediction = ready(found)((255 * image).astype(np.uint8))
    else:
        prediction, _ = found.model.forward(
            found.params, found.batch_stats, image.astype(np.float32), train=False
        )
    logits = np.asarray(prediction.logits, np.float64)
    if not np.isfinite(logits).all():
        raise UserError(
            f"{path} gives logits that are not finite for an ordinary image: its "
            "weights are broken, or the network's options are not those of its "
            "training."
        )
    return (
        f"self-check: logits {list(logits.shape)} of a fixed image: mean "
        f"{logits.mean():.6g}, std {logits.std():.6g}, min {logits.min():.6g}, max "
        f"{logits.max():.6g}"
    )


def with_counters(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """With "num_batches_tracked" = 0 behind each running variance, as PyTorch saves."""
    new = {}
    for name, tensor in tensors.items():
        new[name] = tensor
        if name.endswith(".running_var"):
            counter = name.removesuffix("running_var") + "num_batches_tracked"
            new[counter] = np.zeros((), np.int64)
    return new


def run() -> None:
    """The command, with a sentence for the user's mistakes."""
    from uda_jax import program

    program.run(main)
