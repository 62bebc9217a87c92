"""What TUFL's ways of mixing share: the contract, the pasting, the target's labels."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from uda_jax import losses, mixing
from uda_jax.errors import UserError
from uda_jax.methods.method import Network

PyTree = Any

LONG_TAIL_CHOICES = ("uniform", "thresholds")
_STREAMS = {
    "paste": '{"name": "long_tail", "min_pixels": 1, "classes": ()}',
    "template": '{"name": "uniform"}',
}


class Sources(NamedTuple):
    """What is mixed.

    Attributes:
      image: [B, H, W, 3] float32 0..255, the source before its colours are changed.
      label: [B, H, W] its train ids, IGNORE where unlabelled.
      target: [B, H, W, 3] uint8, the plain view.
      pseudo_logits: [B, H, W, C] of the frozen network on it.
      thresholds: [C] adaptive ones of the steps before, or None.
      batch: of the step, with the further streams.
    """

    image: jax.Array
    label: jax.Array
    target: jax.Array
    pseudo_logits: jax.Array
    thresholds: jax.Array | None
    batch: Mapping[str, Any]


class Mixed(NamedTuple):
    """What the segmentor is to see and how it is scored.

    Attributes:
      views: [B, H, W, 3] float32 each, normalised.
      loss: the main head's logits of each view -> float32 scalar, weighted.
      memory: after this step.
      metrics: to log.
      images: panels.
    """

    views: list[jax.Array]
    loss: Callable[[Sequence[jax.Array]], jax.Array]
    memory: PyTree
    metrics: dict[str, jax.Array]
    images: dict[str, jax.Array]


class Mix(NamedTuple):
    """A way of mixing: a pair of pure functions.

    Attributes:
      init: (network, batch) -> memory: the frozen network and what else is kept.
      make: (key, memory, sources) -> Mixed.
    """

    init: Callable[[Network, Mapping], PyTree]
    make: Callable[[jax.Array, PyTree, Sources], Mixed]


def empty_bank(num_classes: int, batch: Mapping) -> PyTree:
    """`mixing.empty_bank` for crops of the batch's size."""
    return mixing.empty_bank(num_classes, batch["source"]["image"].shape[1:3])


def stream(batch: Mapping, name: str, what: str) -> dict[str, jax.Array]:
    """Further images of the source.

    Raises:
      UserError: the batch has none of this name.
    """
    if name not in batch:
        raise UserError(
            f"{what} needs further images of the source: set data.streams.{name} to a "
            f"row such as {_STREAMS[name]}."
        )
    return batch[name]


def paste(
    key: jax.Array,
    image: jax.Array,
    label: jax.Array,
    mask: jax.Array,
    memory: PyTree,
    sources: Sources,
    *,
    counts: jax.Array,
    most: int,
    choice: str,
    table: jax.Array,
) -> tuple[jax.Array, jax.Array, jax.Array, PyTree]:
    """Puts long-tail classes over images.

    Args:
      key: one key for the batch.
      image, label, mask: see `mixing.paste_classes`.
      memory: with "bank", which the batch's stream "paste" refreshes first.
      sources: of the step.
      counts: int32 [B], how many classes each image gets, at most `most`.
      most: see above.
      choice: of `LONG_TAIL_CHOICES`.
      table: bool [C, C], of `mixing.related_table`.

    Returns:
      image, label, mask, memory.

    Raises:
      UserError: no such stream or no thresholds.
    """
    crops = stream(sources.batch, "paste", "long-tail pasting")
    if "class" not in crops:
        raise UserError(
            "data.streams.paste does not say which class a crop holds: use "
            f"{_STREAMS['paste']}."
        )
    bank = mixing.refresh_bank(memory["bank"], crops)
    log_weights = jnp.zeros(len(table))
    if choice == "thresholds":
        if sources.thresholds is None:
            raise UserError(
                'long_tail_choice is "thresholds", but there are none: use '
                'unsup_loss="adaptive_focal", or "uniform".'
            )
        log_weights = 1 / sources.thresholds
    drawn = mixing.draw_classes(
        key, log_weights, bank["filled"], len(label), most,
        replace=choice == "thresholds",
    )  # fmt: skip
    image, label, mask = mixing.paste_classes(
        image, label, mask, bank, drawn, counts, table
    )
    return image, label, mask, {**memory, "bank": bank}


def labels_of_target(
    sources: Sources, confidence: float
) -> tuple[jax.Array, jax.Array]:
    """The frozen network's share of confident pixels [B] and labels [B, H, W]."""
    logits = sources.pseudo_logits
    pseudo = jnp.argmax(logits, -1).astype(sources.label.dtype)
    return losses.confident_share(logits, confidence), pseudo


def mix_metrics(confident: jax.Array, mask: jax.Array) -> dict[str, jax.Array]:
    """What every mix logs: means of the share of confident pixels and of the mask."""
    return {
        "mix/confident": jnp.mean(confident),
        "mix/from_source": jnp.mean(mask.astype(jnp.float32)),
    }
