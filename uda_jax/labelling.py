"""A network looks at unlabelled images: pseudo-labels, and how sure it is of them."""

import collections
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from uda_jax.acquisition import entropy_score
from uda_jax.data.reading import in_groups, read_ahead
from uda_jax.data.resizing import resize_image
from uda_jax.errors import UserError
from uda_jax.inference import inference_options, probabilities
from uda_jax.labels import IGNORE

PyTree = Any

_IN_FLIGHT = 2  # batches dispatched to the device and not yet read back


class Seen(NamedTuple):
    """What a network says of one image.

    Attributes:
      label: uint8 [H, W] train ids of the likeliest classes; `IGNORE` where their
        probability is not above the threshold.
      entropy: of `acquisition.entropy_score`.
      present: bool [C], the classes that are the likeliest of a pixel, sure or not.
      confidence: mean over the pixels of the largest probability.
      certainty: uint8 [H, W], that probability p in steps of a sixteenth of an octave
        of 1 - p, floor(-16 log2(1 - p + 2^-16)) clipped to [0, 255]; None if it was not
        asked for.
    """

    label: np.ndarray
    entropy: np.ndarray
    present: np.ndarray
    confidence: np.ndarray
    certainty: np.ndarray | None = None


def pseudo_labels(probs: jax.Array, threshold: jax.Array) -> Seen:
    """Of probabilities [B, H, W, C] that sum to 1; for `look_at`."""
    largest, ids = jnp.max(probs, -1), jnp.argmax(probs, -1)
    return Seen(
        label=jnp.where(largest > threshold, ids, IGNORE).astype(jnp.uint8),
        entropy=entropy_score(probs),
        present=(ids[..., None] == jnp.arange(probs.shape[-1])).any((1, 2)),
        confidence=jnp.mean(largest, (1, 2)),
    )


def pseudo_labels_and_certainty(probs: jax.Array, threshold: jax.Array) -> Seen:
    """The same with `Seen.certainty`."""
    certainty = _sixteenths_of_octaves(jnp.max(probs, -1))
    return pseudo_labels(probs, threshold)._replace(certainty=certainty)


@partial(
    jax.jit,
    static_argnames=(
        *("tell", "num_classes", "mode", "window", "stride", "scales", "flip"),
        *("resize", "align_corners", "per_pass", "output_size"),
    ),
)
def _look(forward, image, given, *, tell, num_classes, **options):
    scores = probabilities(forward, image, **options)
    if scores.shape[-1] != num_classes:
        raise UserError(
            f"the network has {scores.shape[-1]} classes and the label space "
            f"{num_classes}: give the label space that it was trained in."
        )
    return tell(scores / jnp.sum(scores, -1, keepdims=True), given)


def _sixteenths_of_octaves(largest: jax.Array) -> jax.Array:
    """A trained network is sure of most pixels: 8 bits of p itself would all be one."""
    octaves = -jnp.log2(1 - largest + 2.0**-16)
    return jnp.clip(jnp.floor(16 * octaves), 0, 255).astype(jnp.uint8)


def look_at(
    forward: Callable[[jax.Array], jax.Array],
    dataset: Sequence[Mapping[str, Any]],
    indices: Sequence[int],
    *,
    num_classes: int,
    tell: Callable[[jax.Array, Any], PyTree] = pseudo_labels,
    given: Any = 0.0,
    mode: str = "whole",
    window: Sequence[int] | None = None,
    stride: Sequence[int] | None = None,
    scales: Sequence[float] = (1.0,),
    flip: bool = False,
    size: Sequence[int] | None = None,
    filter: str = "area",
    resize: str = "probabilities",
    align_corners: bool = True,
    batch_size: int = 1,
    sharding: jax.sharding.NamedSharding | None = None,
) -> Iterator[tuple[int, PyTree]]:
    """Looks at images one after the other, at the size that the network sees.

    A last incomplete batch is filled with copies, of which nothing is told.  Memory
    holds a few batches, however many images there are.

    Args:
      forward: as for `uda_jax.evaluate.evaluate`.
      dataset: items {"image": uint8 [H, W, 3], ...}; no label is looked at.
      indices: which of its images.
      num_classes: C.
      tell: (probabilities [B, H, W, C], given) -> arrays [B, ...], what is wanted of
        an image; a function of a module, as it is compiled once for each.
      given: to `tell`; of `pseudo_labels` the threshold: a pixel gets a label if its
        largest probability is above it.
      mode, window, stride, scales, flip, resize, align_corners: see
        `uda_jax.inference.inference_options`.
      size, filter, batch_size: as for `evaluate`.
      sharding: of the image batch over this process's devices, on which the weights
        must lie too; only the mode "whole" splits its work.

    Yields:
      (index, what `tell` tells), each index once; images of one size in their order.

    Raises:
      UserError: options that do not fit each other, an image that cannot be read, a
        network with another number of classes.
    """
    options = inference_options(
        mode, window, stride, scales, flip, resize, align_corners
    )
    group = batch_size if mode == "whole" else 1
    if not isinstance(forward, jax.tree_util.Partial):
        forward = jax.tree_util.Partial(forward)

    def load(index: int) -> np.ndarray:
        image = dataset[index]["image"]
        return resize_image(image, tuple(size), filter) if size else image

    def put(images: np.ndarray):
        if sharding is None or mode != "whole":
            return images
        return jax.device_put(images, sharding)

    def read_back() -> Iterator[tuple[int, PyTree]]:
        chosen, seen = pending.popleft()
        seen = jax.tree.map(np.asarray, seen)
        for place, index in enumerate(chosen):
            yield index, jax.tree.map(lambda x, place=place: x[place], seen)

    pending = collections.deque()
    for items in in_groups(read_ahead(load, indices), group, np.shape):
        images = np.stack([image for _, image in items])
        fill = np.repeat(images[:1], group - len(items), axis=0)
        seen = _look(
            forward,
            put(np.concatenate([images, fill])),
            given,
            tell=tell,
            num_classes=num_classes,
            per_pass=batch_size,
            output_size=images.shape[1:3],
            **options,
        )
        pending.append(([index for index, _ in items], seen))
        if len(pending) > _IN_FLIGHT:
            yield from read_back()
    while pending:
        yield from read_back()
