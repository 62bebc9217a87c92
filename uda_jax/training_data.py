"""What a run trains on: its datasets, prepared ones where they fit, and the batches."""

import functools
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
from ml_collections import ConfigDict

from uda_jax import parallel
from uda_jax.benchmarks import label_space_of, open_dataset, open_datasets
from uda_jax.checkpoints import has_checkpoint
from uda_jax.class_weights import FREQUENCIES, from_frequencies
from uda_jax.data.daformer_statistics import read_daformer
from uda_jax.data.dataset import Dataset
from uda_jax.data.fingerprint import fingerprint
from uda_jax.data.geometry import GEOMETRIES, split_fixed
from uda_jax.data.pipeline import TrainIterator, train_iterator
from uda_jax.data.prepared import find_prepared
from uda_jax.data.sampling import SAMPLINGS, uniform
from uda_jax.data.statistics import ClassCounts, class_counts
from uda_jax.errors import UserError
from uda_jax.factories import build
from uda_jax.files import write_atomically
from uda_jax.progress import progress

READS_PARTNER = ("ss_ada",)  # methods that paste one target image into another
_RECORD = "data.json"
_ORIGINALS = "original files"


class Division(NamedTuple):
    """Which images of the target have labels, at a time.

    Attributes:
      labelled: with their labels; None for no image.
      unlabelled: names of the others.
    """

    labelled: Dataset | None
    unlabelled: frozenset[str]


class TrainingData(NamedTuple):
    """The datasets of a run and how to draw from them.

    Attributes:
      source, target, test: as they are read; the target None where it is not looked at,
        else its unlabelled images.
      labelled: target images with labels; None where there are none.
      reads: domain -> "original files" or the prepared set that is read instead.
      fingerprints: domain -> that of the dataset that the config names.
      notes: why a prepared set that is there is not read, one sentence each.
      counts: gives the pixels of each class in each source label.
      batches: first step -> this process's iterator over the batches from there on.
    """

    source: Dataset
    target: Dataset | None
    test: Dataset
    labelled: Dataset | None
    reads: dict[str, str]
    fingerprints: dict[str, str]
    notes: list[str]
    counts: Callable[[], ClassCounts]
    batches: Callable[[int], TrainIterator]

    def summary(self) -> str:
        """A line for the header, and one for each note."""
        counts = (
            f"{len(self.source)} source, {len(self.target or ())} target, "
            f"{len(self.test)} test"
        )
        if self.labelled is not None:
            counts = f"{len(self.labelled)} labelled target, {counts}"
        reads = ", ".join(f"{k} from {v}" for k, v in self.reads.items())
        return "\n            ".join([f"{counts}; {reads}", *self.notes])

    def with_class_weights(self, method: Mapping[str, Any]) -> dict[str, Any]:
        """The method's row, class_weights="frequencies" computed from the source.

        Its own, and those of its mix.
        """
        row = dict(method)
        if row.get("mix"):
            row["mix"] = self.with_class_weights(row["mix"])
        if row.get("class_weights") == FREQUENCIES:
            weights = from_frequencies(self.counts().frequencies)
            row["class_weights"] = tuple(map(float, weights))
        return row

    def record(self, workdir: Path) -> None:
        """Writes down what is read, so that a run that goes on reads the same."""
        rows = {
            domain: {"reads": self.reads[domain], "fingerprint": digits}
            for domain, digits in self.fingerprints.items()
        }
        write_atomically(workdir / _RECORD, json.dumps(rows, indent=1) + "\n")


def open_training_data(
    config: ConfigDict,
    *,
    needs_target: bool,
    workdir: Path,
    division: Division | None = None,
) -> TrainingData:
    """Opens the datasets of a config and lays out its batches.

    Training images come from a prepared set below `config.data.prepared` where one of
    this dataset, geometry and fingerprint is there; a run that goes on reads what it
    read before, because a JPEG's pixels are not exactly the original's.

    Args:
      config: of the run.
      needs_target: whether the method looks at target images.
      workdir: of the run, which may exist already.
      division: which target images have labels, where rounds decide that.

    Raises:
      UserError: what opening, the geometry or the sampling raises; no target where one
        is needed; a stream that the method does not read; the data of a run that goes
        on have changed or are gone; or hosts read different data.
    """
    _check_streams(config)
    source, target, test = open_datasets(config)
    if needs_target and target is None:
        raise UserError(
            f'target.reader is empty, but method "{config.method.name}" learns from '
            "target images: give their reader and root."
        )
    datasets = {"source": source, "target": target if needs_target else None}
    if config.labelled and division is None:
        datasets["labelled"] = open_dataset(config.labelled, label_space_of(config))
    before = _recorded(workdir)
    ops, reads, fingerprints, notes = {"target": ()}, {}, {}, []
    for domain, dataset in datasets.items():
        if dataset is None:
            continue
        geometry = "source" if domain == "source" else "target"
        ops[domain] = build(GEOMETRIES, "geometry", config.data[geometry])
        fingerprints[domain] = fingerprint(dataset)
        own = getattr(dataset.store, "name", _ORIGINALS)
        was, digits = before.get(domain, ("", fingerprints[domain]))
        reads[domain], reason = own, "data.prepared is empty"
        prepared_reader = config[domain].reader == "prepared"
        if was != own and config.data.prepared and not prepared_reader:
            fixed, rest = split_fixed(ops[domain])
            reader = config[domain].reader
            prepared, reason = find_prepared(
                dataset, fixed, config.data.prepared, reader=reader, only=was
            )
            if prepared is not None:
                datasets[domain], ops[domain] = prepared, rest
                reads[domain] = prepared.store.name
            elif reason:
                notes.append(reason)
        if was and was != reads[domain]:
            reason = reason.rstrip(".") or f"it is not below {config.data.prepared}"
            raise UserError(
                f"the run in {workdir} read its {domain} images from {was}, which "
                f"cannot be done now ({reason}): restore that, or choose another "
                "--workdir."
            )
        if digits != fingerprints[domain]:
            raise UserError(
                f"the {domain} images or labels have changed since the run in "
                f"{workdir} began (other files, sizes or times): restore them, choose "
                f"another --workdir, or delete its {_RECORD} to go on with them."
            )
    if division is not None:
        datasets["labelled"] = division.labelled
        ops["labelled"] = build(GEOMETRIES, "geometry", config.data.target)
        reads["labelled"] = _ORIGINALS
        if whole := datasets["target"]:
            rest = [i for i, n in enumerate(whole.names) if n in division.unlabelled]
            datasets["target"] = whole.select(rest) if rest else None
    # Names and formats: files of hosts that have copies differ in their times.
    seen = {
        domain: [reads[domain].rpartition("-")[0], dataset.names]
        for domain, dataset in datasets.items()
        if dataset is not None
    }
    parallel.check_equal(json.dumps(seen), "would read different data")

    @functools.cache
    def counts() -> ClassCounts:
        if config.data.class_statistics:
            return read_daformer(config.data.class_statistics, source)
        with progress("counting classes") as tell:
            folder = config.data.prepared or None
            return class_counts(datasets["source"], folder, progress=tell)

    sampling = build(SAMPLINGS, "sampling", config.data.sampling, counts)
    streams = {
        name: build(SAMPLINGS, f"data.streams.{name}", row, counts)
        for name, row in config.data.streams.items()
    }
    # Where the source is drawn independently of what came before, so is the target.
    in_epochs = config.data.sampling.name == "epochs"
    further = {}
    if datasets.get("labelled") is not None:
        further["labelled"] = datasets["labelled"], ops["labelled"]
    if config.data.partner and datasets["target"] is not None:
        further["partner"] = datasets["target"], ops["target"]

    def batches(start: int) -> TrainIterator:
        return train_iterator(
            datasets["source"],
            datasets["target"],
            source_ops=ops["source"],
            target_ops=ops["target"],
            sampling=sampling,
            target_sampling=None if in_epochs else uniform(),
            streams=streams,
            further=further,
            batch_size=config.batch_size,
            seed=config.seed,
            start_step=start,
            threads=config.data.threads,
            workers=config.data.workers,
            host=jax.process_index(),
            num_hosts=jax.process_count(),
        )

    return TrainingData(
        datasets["source"], datasets["target"], test, datasets.get("labelled"),
        reads, fingerprints, notes, counts, batches,
    )  # fmt: skip


def _check_streams(config: ConfigDict) -> None:
    """Raises a UserError for batch entries that the method would not read.

    A mix says what it lacks; one that it does not read is decoded all the same.
    """
    if config.data.partner and config.method.name not in READS_PARTNER:
        raise UserError(
            f'data.partner is not read by method "{config.method.name}", but by '
            f"{', '.join(READS_PARTNER)} alone: leave it out."
        )
    if config.data.streams and not config.method.get("mix"):
        raise UserError(
            f"data.streams.{min(config.data.streams)} is not read by method "
            f'"{config.method.name}", as streams are for a mix alone: leave it out, or '
            "set method.mix."
        )


def _recorded(workdir: Path) -> dict[str, tuple[str, str]]:
    """{domain: (what a run that goes on read, fingerprint)}; {} for a new run."""
    path = workdir / _RECORD
    if not has_checkpoint(workdir / "checkpoints"):
        return {}  # nothing was learned yet that other data could contradict
    try:
        rows = json.loads(path.read_text())
        return {
            domain: (str(row["reads"]), str(row["fingerprint"]))
            for domain, row in rows.items()
        }
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path}, which says what data the run reads, is damaged: restore it or "
            "choose another --workdir."
        ) from error
