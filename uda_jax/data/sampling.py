"""Which example comes next: one endless, random-access stream per domain.

A sampling is a function (dataset, ops, seed) -> grain.MapDataset whose element i is the
i-th augmented example of a run.  It follows from (seed, i) alone: a run may start
anywhere, and any number of threads, workers and hosts see the same stream.  `SAMPLINGS`
maps the names that configs use to the factories; those that draw a class first are in
`uda_jax.data.class_sampling`.
"""

import dataclasses
import random
from collections.abc import Callable, Sequence
from typing import Any

import grain
import numpy as np

from uda_jax.data.class_sampling import (
    Counts,
    Ops,
    Sampling,
    long_tail,
    positions,
    rare_class,
)
from uda_jax.data.dataset import Dataset
from uda_jax.data.geometry import split_fixed
from uda_jax.data.ops import apply
from uda_jax.errors import UserError


def epochs(counts: Counts | None = None) -> Sampling:
    """Every example once per epoch, in an order drawn anew for each epoch."""
    del counts

    def stream(dataset: Dataset, ops: Ops, seed: int) -> grain.MapDataset:
        shuffled = grain.MapDataset.source(dataset).seed(seed).shuffle().repeat()
        return _augmented(shuffled, ops)

    return stream


def uniform(counts: Counts | None = None) -> Sampling:
    """Every example drawn from all, each equally likely, whatever came before.

    For both domains this gives DAFormer's pairs without rare-class sampling, and its
    target with it.  The original shuffles all pairs of a source and a target image, so
    that a pair cannot come twice before each has come once, which no run lives to see.
    """
    del counts

    def stream(dataset: Dataset, ops: Ops, seed: int) -> grain.MapDataset:
        return _augmented(positions(seed).random_map(_UniformDraw(dataset)), ops)

    return stream


SAMPLINGS: dict[str, Callable[..., Sampling]] = {
    "epochs": epochs,
    "uniform": uniform,
    "rare_class": rare_class,
    "long_tail": long_tail,
}


def split_labelled(
    names: Sequence[str], ratio: float, seed: int = 0
) -> tuple[list[str], list[str]]:
    """Chooses the examples whose labels may be used, as SS-ADA.

    Python's `random` with `seed` shuffles the sorted names and then samples
    k = int(N * ratio + 0.5) of them.  With the seed 0, and the ratios .5, .25, .125,
    .0625, .05, .022 and .01, these are the published splits of the 140 parking images.
    Its Cityscapes splits come from elsewhere: read their lists.

    Args:
      names: [N], unique, in any order.
      ratio: share of labelled examples, in (0, 1].
      seed: of the choice.

    Returns:
      ([k] labelled names as they were sampled, [N - k] the others as they were
      shuffled).

    Raises:
      UserError: the ratio is not in (0, 1] or leaves no example.
    """
    count = int(len(names) * ratio + 0.5) if 0 < ratio <= 1 else 0
    if not count:
        raise UserError(
            f"ratio={ratio} of {len(names)} examples cannot be labelled: choose one in "
            "(0, 1] that gives at least one example."
        )
    generator = random.Random(seed)
    shuffled = sorted(names)
    generator.shuffle(shuffled)
    labelled = generator.sample(shuffled, count)
    chosen = set(labelled)
    return labelled, [name for name in shuffled if name not in chosen]


@dataclasses.dataclass(frozen=True, eq=False)
class _UniformDraw(grain.transforms.RandomMap):
    """Any position -> an example."""

    dataset: Dataset

    def random_map(self, element: int, rng: np.random.Generator) -> dict[str, Any]:
        return self.dataset[int(rng.integers(len(self.dataset)))]


@dataclasses.dataclass(frozen=True)
class _Fixed(grain.transforms.Map):
    """The ops that draw nothing."""

    ops: Ops

    def map(self, element: dict[str, Any]) -> dict[str, Any]:
        return apply(self.ops, element, None)


def _augmented(stream: grain.MapDataset, ops: Ops) -> grain.MapDataset:
    fixed, rest = split_fixed(tuple(ops))
    # One map whether there are fixed ops or not: grain's seeds follow from the chain's
    # length, and prepared data, which has them behind it, must give the same batches.
    stream = stream.map(_Fixed(fixed))
    for op in rest:
        is_random = isinstance(op, grain.transforms.RandomMap)
        stream = stream.random_map(op) if is_random else stream.map(op)
    return stream
