"""The contract of a domain-adaptation method."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

PyTree = Any


class Output(NamedTuple):
    """What a method's loss returns next to its scalar.

    Attributes:
      metrics: scalars to log; keys are 'group/name'.
      batch_stats: BatchNorm statistics after this step.
      memory: the method's own state after this step.
      images: panels for people to look at, [B, H, W] or [B, H, W, 3].  The train step
        does not return them, so that XLA drops their computation; the panel writer
        compiles the same loss for their sake alone.
    """

    metrics: dict[str, jax.Array]
    batch_stats: PyTree
    memory: PyTree = ()
    images: dict[str, jax.Array] = {}  # noqa: RUF012 (never mutated)


class Network(NamedTuple):
    """A segmentation network's weights.

    Attributes:
      params: of the segmentor.
      batch_stats: BatchNorm's running statistics.
    """

    params: PyTree
    batch_stats: PyTree


class Method(NamedTuple):
    """A method: a pair of pure functions, made by a factory with named numbers.

    Attributes:
      init: (key, network, batch) -> (extra parameters, memory): parameters of other
        networks beside 'segmentor', by name, and the initial memory with explicit
        dtypes.  `network` is the one that `config.frozen_from` names, else the run's
        own before its first step; of `batch` only the shapes matter.
      loss: (params, state, batch, key) -> (scalar, Output).
    """

    init: Callable[[jax.Array, Network, PyTree], tuple[dict, PyTree]]
    loss: Callable[..., tuple[jax.Array, Output]]
