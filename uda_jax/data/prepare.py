r"""Resizes the training images once and stores them where reading them is cheap.

    python -m uda_jax.data.prepare --benchmark gta5_to_cityscapes_maxsquare
    python -m uda_jax.data.prepare --config configs/tufl_rio.py:rome \
        --config.source.root=/data/cityscapes --format jpeg

Every image and label of the source and the target of a run goes through the part of its
geometry that draws nothing (resizing, with the filter of the published program) and is
stored below --out.  A run of the same config then reads that instead, and says so.

PNG, the default, gives exactly the originals' batches; JPEG of quality 95 moves pixels
by about one grey level and takes an eighth of the room.  A 1024 x 2048 PNG prepared at
512 x 1024 costs a seventh of the CPU time as PNG and a tenth as JPEG, everything that
makes a batch included (docs/performance.md).  While it works the command needs twice
the room of what it makes.

A command that was stopped, by whatever, goes on where it was when it is repeated.
"""

import argparse
import dataclasses
import errno
import io
import json
import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from uda_jax import benchmarks, program
from uda_jax.config_files import load_config, parse_beside_config
from uda_jax.data.dataset import Dataset, Files, check_one_of
from uda_jax.data.fingerprint import digits, fingerprint
from uda_jax.data.geometry import GEOMETRIES, split_fixed
from uda_jax.data.prepared import FORMATS, VERSION, Description, check_set, ops_text
from uda_jax.data.records import CLASS_COUNTS, check_whole, seal
from uda_jax.data.staging import alone, encode_all, staged
from uda_jax.data.statistics import Progress
from uda_jax.errors import UserError
from uda_jax.factories import build
from uda_jax.files import write_atomically
from uda_jax.progress import progress


def prepare(
    dataset: Dataset,
    fixed_ops: Sequence,
    folder: str | Path,
    *,
    name: str = "folder",
    format: str = "png",
    threads: int = os.cpu_count() or 1,
    progress: Progress | None = None,
) -> Path:
    """Writes the prepared set of a dataset; see `uda_jax.data.prepared`.

    Each example is encoded once and put aside in <folder>/.staging; when all are there
    they become one set of tensorflow-datasets, which takes its place by one renaming.
    What was put aside is used by the next call, whatever ended this one; of files that
    have changed since it is not used, and may be deleted.

    Args:
      dataset: of original files; labels are stored if it has them.
      fixed_ops: what is applied to each image and label: the first part of
        `uda_jax.data.geometry.split_fixed`.
      folder: that sets are kept in.
      name: key of `uda_jax.data.builders.DATA_SETS`: the dataset's reader.
      format: "png" or "jpeg", of the images.
      threads: that decode and encode.
      progress: called with (examples done, examples in all).

    Returns:
      The set's folder; at once where the set is there already.

    Raises:
      UserError: what decoding raises, `folder` cannot be written, files change
        meanwhile, another process prepares the same, a name is no UTF-8, or the set
        that is there is not whole.
    """
    check_one_of("format", format, FORMATS)
    _check_names(dataset.names)
    description = describe(dataset, fixed_ops, format)
    title = _title(description, fixed_ops)
    place = Path(folder) / name / title / VERSION
    staging = Path(folder) / ".staging" / title
    try:
        if not place.exists():
            staging.parent.mkdir(parents=True, exist_ok=True)
            with alone(staging):
                # Looked at again: another process may just have finished it.
                if not place.exists():
                    staging.mkdir(exist_ok=True)
                    encode_all(dataset, fixed_ops, format, staging, threads, progress)
                    made = _assemble(description, name, title, staging)
                    if fingerprint(dataset) != description.fingerprint:
                        shutil.rmtree(staging)
                        raise UserError(
                            f"files changed while {place} was being prepared from "
                            "them: let them rest and prepare the data again."
                        )
                    place.parent.mkdir(parents=True, exist_ok=True)
                    os.replace(made, place)
    except OSError as error:
        raise _not_written(folder, staging, error) from error
    check_set(place)
    shutil.rmtree(staging, ignore_errors=True)
    return place


def _check_names(names: Sequence[str]) -> None:
    for name in names:
        try:
            name.encode("utf-8")
        except UnicodeEncodeError as error:
            raise UserError(
                f"the name {name!a} of an example is not UTF-8, which prepared data "
                "must have: rename its files."
            ) from error


def _not_written(folder: str | Path, staging: Path, error: OSError) -> UserError:
    if error.errno not in (errno.ENOSPC, errno.EDQUOT):
        advice = "choose a folder that can be written"
    elif any(staging.glob("[0-9]*")):
        advice = (
            "make room there and repeat the command, which goes on with what is done"
        )
    else:
        advice = "make room there or choose another folder"
    reason = error.strerror or error
    return UserError(f"{folder} cannot be written ({reason}): {advice}.")


def describe(dataset: Dataset, fixed_ops: Sequence, format: str) -> Description:
    """What the prepared set of a dataset will say of itself."""
    store = dataset.store
    without = (
        dataclasses.replace(store, labels=())
        if isinstance(store, Files)
        else dataclasses.replace(store, has_labels=False)
    )
    return Description(
        names=dataset.names,
        weights=tuple(map(float, dataset.weights)),
        coding=dict(dataset.coding) if dataset.has_labels else {},
        has_labels=dataset.has_labels,
        sizes_may_differ=dataset.sizes_may_differ and not fixed_ops,
        ops=ops_text(fixed_ops),
        format=format,
        fingerprint=fingerprint(dataset),
        images_fingerprint=fingerprint(dataclasses.replace(dataset, store=without)),
    )


def _title(description: Description, fixed_ops: Sequence) -> str:
    """The configuration's name: 512x1024-pillow_bicubic-png-0123456789abcdef."""
    values = [value for op in fixed_ops for value in vars(op).values()]
    texts = [
        "x".join(map(str, v)) if isinstance(v, tuple) else str(v) for v in values
    ] or ["original-size"]
    # All of it, so that renamed classes or other weights make another set.
    key = digits(json.dumps(description.to_json(), sort_keys=True), VERSION)
    parts = [re.sub(r"[^\w.-]+", "_", text) for text in texts]
    return "-".join([*parts, description.format, key])


def _assemble(description: Description, name: str, title: str, staging: Path) -> Path:
    """Makes the set from what was put aside; gives its folder, still in `staging`."""
    # Imported late: it takes half a second.
    from uda_jax.data.builders import PreparedConfig, write_set

    def example(index: int) -> dict:
        image = staged(staging, index, description.format)
        features = {"image": str(image), "name": description.names[index]}
        if description.has_labels:
            features["label"] = str(staged(staging, index, "label"))
        if description.weights:
            features["weight"] = description.weights[index]
        return features

    config = PreparedConfig(name=title, contents=description, example=example)
    shutil.rmtree(staging / "set", ignore_errors=True)  # of a run that was stopped
    made = write_set(name, config, staging / "set")
    count = len(description.names)
    if description.has_labels:
        counts = [np.load(staged(staging, i, "counts")) for i in range(count)]
        stream = io.BytesIO()
        np.savez_compressed(stream, raw_counts=np.stack(counts).astype(np.int64))
        write_atomically(made / CLASS_COUNTS, stream.getvalue())
    seal(made)
    check_whole(made, count)
    return made


def main(argv: Sequence[str] | None = None) -> None:
    """Prepares the domains that the command line names."""
    arguments, overrides = _parse(argv)
    config = _config(arguments, overrides)
    source, target, _ = benchmarks.open_datasets(config)
    opened = {"source": source, "target": target}
    for domain in arguments.domains:
        dataset, reader = opened[domain], config[domain].reader
        if dataset is None:
            print(f"{domain}: the config has none")
            continue
        if not isinstance(dataset.store, Files) and reader != "tfds_cityscapes":
            raise UserError(f"the {domain} is read from prepared data already.")
        fixed, _ = split_fixed(build(GEOMETRIES, "geometry", config.data[domain]))
        out = arguments.out or config.data.prepared
        if not out:
            raise UserError('data.prepared is "": give the folder with --out.')
        what = f"{len(dataset):,} examples of {reader}, {ops_text(fixed)}"
        print(f"{domain}: {what}, as {arguments.format}", flush=True)
        with progress(domain) as advance:
            place = prepare(
                dataset,
                fixed,
                out,
                name=reader,
                format=arguments.format,
                threads=arguments.threads,
                progress=advance,
            )
        size = sum(path.stat().st_size for path in place.iterdir())
        print(f"{domain}: {size / 1e6:,.1f} MB in {place}", flush=True)


def _parse(argv: Sequence[str] | None) -> tuple[argparse.Namespace, list[str]]:
    parser = argparse.ArgumentParser(
        prog="python -m uda_jax.data.prepare",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,  # --config.x belongs to the config
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--config", help="of the run: configs/x.py or x.py:variant")
    what.add_argument("--benchmark", help="with the geometry of its base config")
    add = parser.add_argument
    add("--out", help="folder of prepared sets (default: the config's data.prepared)")
    add("--format", choices=FORMATS, default="png", help="default: %(default)s")
    domains = ("source", "target")
    add("--domains", nargs="+", choices=domains, default=domains, help="default: both")
    add("--threads", type=int, default=os.cpu_count() or 1,
        help="that decode and encode (default: %(default)s)")  # fmt: skip
    add("--debug", action="store_true", help="show tracebacks of mistakes")
    arguments, rest = parse_beside_config(parser, argv)
    if arguments.threads < 1:
        raise UserError(f"--threads={arguments.threads} must be 1 or more.")
    return arguments, rest


def _config(arguments: argparse.Namespace, overrides: list[str]) -> ConfigDict:
    if arguments.benchmark:
        return benchmarks.base_config(arguments.benchmark)
    return load_config(arguments.config, overrides)


def run() -> None:
    """The command, with a sentence for the user's mistakes."""
    program.run(main)


if __name__ == "__main__":
    run()
