"""The grain chain of training: source and target zipped, position = step.

The batches are a function of (datasets, geometry, sampling, seed, step): not of the
number of threads or worker processes, nor of where the iteration started, nor of how
many hosts share a batch.  So the step is the only data position that a checkpoint
needs.
"""

import concurrent.futures
import contextlib
import dataclasses
import itertools
import multiprocessing
import multiprocessing.connection
import os
import pickle
import traceback
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import cloudpickle
import grain
import numpy as np

from uda_jax.data.dataset import Dataset
from uda_jax.data.geometry import split_fixed
from uda_jax.data.ops import Frozen
from uda_jax.data.sampling import Sampling, epochs
from uda_jax.errors import UserError
from uda_jax.program import interrupts_ignored

Batch = dict[str, dict[str, np.ndarray]]
Names = dict[str, list[str]]
Ops = Sequence[grain.transforms.Transformation]

# Examples per stream: far beyond any run, and small enough to multiply in 64 bits.
_STEPS = 2**32


class TrainIterator(Iterator[tuple[Batch, Names]]):
    """Yields (batch, names) for one step after the other, without an end.

    Close it, or use it in `with`, so that its threads and processes stop.
    """

    def __init__(
        self, steps: grain.MapDataset, start_step: int, threads: int, workers: int
    ):
        # Batches made ahead, by each worker; grain wants 0 where there is no thread.
        read = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * threads)
        steps = steps[start_step:]
        if workers:
            shares = [steps[i::workers].to_iter_dataset(read) for i in range(workers)]
            self._iterator = _Workers(shares)
        else:
            self._iterator = iter(steps.to_iter_dataset(read))

    def __next__(self) -> tuple[Batch, Names]:
        batch, names = {}, {}
        for domain, examples in next(self._iterator).items():
            names[domain] = [str(name) for name in examples["name"]]
            batch[domain] = {k: v for k, v in examples.items() if k != "name"}
        return batch, names

    def close(self) -> None:
        if self._iterator is not None:
            self._iterator.close()
        # Deleted only when the program ends, grain's iterators complain.
        self._iterator = None

    def __enter__(self) -> "TrainIterator":
        return self

    def __exit__(self, *_) -> None:
        self.close()


class _Workers(Iterator[dict[str, Any]]):
    """Takes one element from each worker process in turn.

    Instead of grain's mp_prefetch, whose queue holds more than a pipe does when a batch
    is above 64 kB: a worker asked to stop waits for somebody to read the rest until
    grain kills it after 25 s, and one killed half-way leaves the reader waiting for
    ever.  grain's other way, shared memory, needs more than the 64 MB of a container.
    """

    def __init__(self, shares: Sequence[grain.IterDataset]):
        context = multiprocessing.get_context("spawn")  # jax has threads, so no fork
        self._workers = []
        for share in shares:
            reader, writer = context.Pipe(duplex=False)
            process = context.Process(
                target=_work, args=(cloudpickle.dumps(share), writer), daemon=True
            )
            with interrupts_ignored():
                process.start()
            writer.close()  # the worker's end is the only one, so its death is seen
            self._workers.append((process, reader))
        # Reads one element ahead.
        self._elements = self._receive()
        self._thread = concurrent.futures.ThreadPoolExecutor(1)
        self._ahead = self._thread.submit(next, self._elements)

    def _receive(self) -> Iterator[dict[str, Any]]:
        for process, reader in itertools.cycle(self._workers):
            try:
                element = reader.recv()
            except (EOFError, OSError):
                raise _died(process) from None
            if isinstance(element, Exception):
                raise element
            yield element

    def __next__(self) -> dict[str, Any]:
        element = self._ahead.result()
        self._ahead = self._thread.submit(next, self._elements)
        return element

    def close(self) -> None:
        # Killed, because nobody wants what they have still to send.
        for process, _ in self._workers:
            process.kill()
        self._thread.shutdown()
        for process, reader in self._workers:
            process.join()
            reader.close()


def _died(process: multiprocessing.process.BaseProcess) -> UserError:
    process.join()
    if process.exitcode < 0:
        return UserError(
            f"a worker process was killed by signal {-process.exitcode}, most likely "
            "because memory ran out: choose fewer workers or threads."
        )
    return UserError(
        f"a worker process ended with exit code {process.exitcode}: mend what it "
        "printed, or set workers=0."
    )


def _work(share: bytes, writer: multiprocessing.connection.Connection) -> None:
    """What a worker process does."""
    try:
        for element in cloudpickle.loads(share):
            writer.send(element)
    except BrokenPipeError:
        pass  # the main process was killed
    except Exception as error:
        writer.send(_sendable(error))
    os._exit(0)  # not waiting for the threads that make the next elements


def _sendable(error: Exception) -> Exception:
    """The error, or one with its text where it cannot be sent; with its traceback."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        if isinstance(error, UserError):
            error = UserError(str(error))
        else:
            error = RuntimeError(f"{type(error).__name__}: {error}")
    error.add_note(traceback.format_exc())  # a traceback itself cannot be sent
    return error


def train_iterator(
    source: Dataset,
    target: Dataset | None,
    *,
    source_ops: Ops,
    target_ops: Ops = (),
    sampling: Sampling | None = None,
    target_sampling: Sampling | None = None,
    streams: Mapping[str, Sampling] | None = None,
    further: Mapping[str, tuple[Dataset, Ops]] | None = None,
    batch_size: int,
    seed: int,
    start_step: int = 0,
    threads: int = 2,
    workers: int = 0,
    host: int = 0,
    num_hosts: int = 1,
) -> TrainIterator:
    """This host's part of each global batch, from `start_step` on.

    A batch is {"source": {"image": uint8 [B, H, W, 3], "label": uint8 [B, H, W]},
    "target": {"image": uint8 [B, h, w, 3]}} with B = batch_size / num_hosts and the
    sizes that the ops leave.  Each of `streams` adds an entry like the source's, each
    of `further` one of its own dataset.
    Datasets with weights add "weight": float32 [B], ops that fill up may add "valid":
    uint8 [B, H, W], long-tail sampling adds "class": int32 [B].  Host n holds the
    examples n * B to (n + 1) * B - 1 of the global batch, augmentation included.  Each
    entry has a stream of its own; an epoch may end inside a batch, so that a dataset
    may be smaller than the batch.

    Args:
      source: the labelled dataset.
      target: the other domain, opened without labels; None for none.
      source_ops, target_ops: geometry of each, such as `uda_jax.data.geometry` makes.
        The seeds of their `Frozen` ops follow from `seed`.
      sampling, target_sampling: which example comes next, see `uda_jax.data.sampling`;
        shuffled epochs where None.
      streams: batch entry -> how to draw it, further examples of the source with the
        source's ops; they change no other entry.
      further: batch entry -> a dataset, with or without labels, and its ops; drawn as
        the target is.
      batch_size: examples of each entry in the global batch.
      seed: of order and augmentation.
      start_step: number of the first batch.
      threads: that decode ahead, in each worker; 0 decodes when asked.
      workers: processes that make the batches instead of this one; 0 for none.  They
        take seconds to start and pay where decoding keeps more than a core busy.
      host, num_hosts: which part of the batch.

    Raises:
      UserError: a number is out of range, the source has no labels or the target has,
        or a stream has a name that it cannot have; while iterating, what decoding or a
        sampling raises, of a stream with its name before it, examples of one batch that
        differ in size, and a worker that was killed.
    """
    if batch_size < 1 or batch_size % num_hosts:
        raise UserError(
            f"batch_size={batch_size} cannot be split evenly over {num_hosts} "
            "processes: choose a multiple of their number."
        )
    if threads < 0:
        raise UserError(f"threads={threads} is negative: 0 decodes without threads.")
    if workers < 0:
        raise UserError(f"workers={workers} is negative: 0 starts no processes.")
    if not source.has_labels:
        raise UserError("the source dataset has no labels: training needs them.")
    if target is not None and target.has_labels:
        raise UserError(
            "the target dataset was opened with labels, which must not reach training: "
            "open it with labels=False."
        )
    parts = {"source": (0, source, source_ops, sampling)}
    if target is not None:
        parts["target"] = (1, target, target_ops, target_sampling)
    for name, draw in (streams or {}).items():
        if not name.isidentifier() or name in ("source", "target"):
            raise UserError(
                f'data.streams cannot have "{name}": call a stream by a plain word '
                "other than source and target."
            )
        # Its name read as a number, above 1, whatever other streams there are.
        number = int.from_bytes(name.encode())
        parts[name] = (number, source, source_ops, draw)
    for name, (dataset, ops) in (further or {}).items():
        number = int.from_bytes(name.encode())
        parts[name] = (number, dataset, ops, target_sampling)
    domains = {}
    for domain, (number, dataset, ops, draw) in parts.items():
        fixed, rest = split_fixed(tuple(ops))
        rest = tuple(
            dataclasses.replace(op, seed=_seed(seed, number, place))
            if isinstance(op, Frozen)
            else op
            for place, op in enumerate(rest, 1)
        )
        draw = draw or epochs()
        if domain not in (streams or {}):
            stream = draw(dataset, fixed + rest, _seed(seed, number))
        else:
            with _named(domain):
                stream = draw(dataset, fixed + rest, _seed(seed, number))
            stream = _Named(stream, domain)
        domains[domain] = _batches(stream, batch_size, host, num_hosts)
    names = tuple(domains)
    steps = grain.experimental.ZipMapDataset(list(domains.values())).map(
        lambda batches: dict(zip(names, batches, strict=True))
    )
    return TrainIterator(steps, start_step, threads, workers)


@contextlib.contextmanager
def _named(name: str) -> Iterator[None]:
    """Says of which of several streams a mistake is."""
    try:
        yield
    except UserError as error:
        raise UserError(f"data.streams.{name}: {error}") from error


class _Named(grain.MapDataset):
    """The elements of a stream, whose mistakes show under its name."""

    def __init__(self, parent: grain.MapDataset, name: str):
        super().__init__(parent)
        self._name = name

    def __len__(self) -> int:
        return len(self._parent)

    def __getitem__(self, index):
        if isinstance(index, slice):
            return self.slice(index)
        with _named(self._name):
            return self._parent[index]


def _batches(stream, batch_size, host, num_hosts) -> grain.MapDataset:
    """A MapDataset whose n-th element is this host's part of batch n."""
    stream = stream[: _STEPS * batch_size]
    # One strided view per place in the batch, taken after random_map, so that an
    # example's random numbers belong to its place in the global batch.  Contiguous
    # places, because that is how a global array is put together from the hosts' parts.
    local = batch_size // num_hosts
    places = range(host * local, (host + 1) * local)
    views = [stream[place::batch_size] for place in places]
    return grain.experimental.ZipMapDataset(views).map(_stack)


def _stack(examples: tuple[dict[str, Any], ...]) -> dict[str, np.ndarray]:
    shapes = {example["image"].shape[:2]: example["name"] for example in examples}
    if len(shapes) > 1:
        (a, first), (b, second) = list(shapes.items())[:2]
        raise UserError(
            f"images of one batch differ in size, {first} is {a[0]} x {a[1]} and "
            f"{second} is {b[0]} x {b[1]} (height x width): choose a geometry that "
            "resizes or crops to one size."
        )
    return {key: np.stack([e[key] for e in examples]) for key in examples[0]}


def _seed(*numbers: int) -> int:
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])
