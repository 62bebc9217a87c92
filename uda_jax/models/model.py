"""What a segmentation network is to the rest of the library: two pure functions."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

PyTree = Any


class Prediction(NamedTuple):
    """What one forward pass gives.

    Attributes:
      logits: [B, H, W, C] float32, at the input's resolution.
      aux_logits: logits of the auxiliary heads, each [B, H, W, C] float32.
      features: the network's own intermediate features, or ().
    """

    logits: jax.Array
    aux_logits: tuple[jax.Array, ...] = ()
    features: PyTree = ()


class Model(NamedTuple):
    """A network without state.

    Attributes:
      init: key -> (params, batch_stats), two nested dicts of float32 arrays.
      forward: (params, batch_stats, image, *, train, rngs=None) ->
        (Prediction, new batch_stats); image is normalised float32 [B, H, W, 3].  With
        `train` a BatchNorm that is not frozen uses and updates the batch's statistics.
    """

    init: Callable[[jax.Array], tuple[PyTree, PyTree]]
    forward: Callable[..., tuple[Prediction, PyTree]]
