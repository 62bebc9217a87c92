"""The grain chain of training: source and target zipped, position = step.

The batches are a function of (datasets, geometry, seed, step): not of the number of
threads, nor of where the iteration started, nor of how many hosts share a batch.  So
the step is the only data position that a checkpoint needs.
"""

from collections.abc import Iterator
from typing import Any

import grain
import numpy as np

from uda_jax.data.dataset import Dataset
from uda_jax.data.ops import Frozen, geometry
from uda_jax.errors import UserError

Batch = dict[str, dict[str, np.ndarray]]
Names = dict[str, list[str]]

# Examples per stream: far beyond any run, and small enough to multiply in 64 bits.
_STEPS = 2**32


class TrainIterator(Iterator[tuple[Batch, Names]]):
    """Yields (batch, names) for one step after the other, without an end.

    Close it, or use it in `with`, so that its threads stop.
    """

    def __init__(self, steps: grain.MapDataset, start_step: int, threads: int):
        self._iterator = iter(
            steps[start_step:].to_iter_dataset(
                grain.ReadOptions(
                    num_threads=threads,
                    # Steps made ahead; grain wants 0 where there is no thread.
                    prefetch_buffer_size=2 * threads,
                )
            )
        )

    def __next__(self) -> tuple[Batch, Names]:
        batch, names = {}, {}
        for domain, examples in next(self._iterator).items():
            names[domain] = [str(name) for name in examples["name"]]
            batch[domain] = {k: v for k, v in examples.items() if k != "name"}
        return batch, names

    def close(self) -> None:
        self._iterator.close()

    def __enter__(self) -> "TrainIterator":
        return self

    def __exit__(self, *_) -> None:
        self.close()


def train_iterator(
    source: Dataset,
    target: Dataset | None,
    *,
    crop_size: tuple[int, int],
    batch_size: int,
    seed: int,
    start_step: int = 0,
    resize: tuple[int, int] = (),
    scales: tuple[float, ...] = (1.0,),
    flip_probability: float = 0.5,
    frozen_augmentation: bool = False,
    threads: int = 2,
    host: int = 0,
    num_hosts: int = 1,
) -> TrainIterator:
    """This host's part of each global batch, from `start_step` on.

    A batch is {"source": {"image": uint8 [B, H, W, 3], "label": uint8 [B, H, W]},
    "target": {"image": uint8 [B, H, W, 3]}} with B = batch_size / num_hosts and (H, W)
    = crop_size; datasets with weights add "weight": float32 [B].  Host h holds examples
    [h * B, (h + 1) * B) of the global batch, augmentation included.  Each domain has
    its own shuffled epochs; an epoch may end inside a batch, so that a dataset may be
    smaller than the batch.

    Args:
      source: the labelled dataset.
      target: the other domain, opened without labels; None for none.
      crop_size, resize, scales, flip_probability: see `uda_jax.data.ops.geometry`; the
        same for both domains.
      batch_size: examples of each domain in the global batch.
      seed: of order and augmentation.
      start_step: number of the first batch.
      frozen_augmentation: draw the target's flip, scale and crop once for the whole
        run, as the released TUFL does, instead of once per example.
      threads: that decode ahead; 0 decodes when asked.  Changes no number.
      host, num_hosts: which part of the batch.

    Raises:
      UserError: a number is out of range, the source has no labels or the target has;
        while iterating, what decoding raises.
    """
    if batch_size < 1 or batch_size % num_hosts:
        raise UserError(
            f"batch_size={batch_size} cannot be split evenly over {num_hosts} "
            "processes: choose a multiple of their number."
        )
    if threads < 0:
        raise UserError(f"threads={threads} is negative: 0 decodes without threads.")
    if not source.labels:
        raise UserError("the source dataset has no labels: training needs them.")
    if target is not None and target.labels:
        raise UserError(
            "the target dataset was opened with labels, which must not reach training: "
            "open it with labels=False."
        )
    ops = geometry(
        crop_size=crop_size,
        resize=resize,
        scales=scales,
        flip_probability=flip_probability,
    )
    target_ops = ops
    if frozen_augmentation:
        target_ops = tuple(
            Frozen(op, _seed(seed, 2 + i))
            if isinstance(op, grain.transforms.RandomMap)
            else op
            for i, op in enumerate(ops)
        )
    batches = lambda *args: _batches(*args, batch_size, host, num_hosts)
    domains = {"source": batches(source, ops, _seed(seed, 0))}
    if target is not None:
        domains["target"] = batches(target, target_ops, _seed(seed, 1))
    steps = grain.experimental.ZipMapDataset(list(domains.values())).map(
        lambda parts: dict(zip(domains, parts, strict=True))
    )
    return TrainIterator(steps, start_step, threads)


def _batches(dataset, ops, seed, batch_size, host, num_hosts) -> grain.MapDataset:
    """A MapDataset whose n-th element is this host's part of batch n."""
    stream = grain.MapDataset.source(dataset).seed(seed).shuffle().repeat()
    for op in ops:
        is_random = isinstance(op, grain.transforms.RandomMap)
        stream = stream.random_map(op) if is_random else stream.map(op)
    stream = stream[: _STEPS * batch_size]
    # One strided view per place in the batch, taken after random_map, so that an
    # example's random numbers belong to its place in the global batch.  Contiguous
    # places, because that is how a global array is put together from the hosts' parts.
    local = batch_size // num_hosts
    places = range(host * local, (host + 1) * local)
    views = [stream[place::batch_size] for place in places]
    return grain.experimental.ZipMapDataset(views).map(_stack)


def _stack(examples: tuple[dict[str, Any], ...]) -> dict[str, np.ndarray]:
    return {key: np.stack([e[key] for e in examples]) for key in examples[0]}


def _seed(seed: int, stream: int) -> int:
    return int(np.random.SeedSequence([seed, stream]).generate_state(1)[0])
