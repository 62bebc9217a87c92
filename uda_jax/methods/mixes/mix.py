"""What TUFL's ways of mixing share: the contract, the pasting, what is mixed."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from uda_jax import losses, mixing
from uda_jax.class_weights import class_weights as class_weight_table
from uda_jax.errors import UserError
from uda_jax.methods.method import Network
from uda_jax.style import fourier_style

PyTree = Any

LONG_TAIL_CHOICES = ("uniform", "thresholds")
# How many classes "single" pastes: two, or two to four where thresholds choose them.
COUNTS = {"uniform": (2, 2), "thresholds": (2, 4)}
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
      needs_thresholds: `Sources.thresholds` must not be None.
    """

    init: Callable[[Network, Mapping], PyTree]
    make: Callable[[jax.Array, PyTree, Sources], Mixed]
    needs_thresholds: bool = False


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


def weights_of_mix(
    class_weights: str | Sequence[float], of_stage_one: jax.Array
) -> jax.Array:
    """[C]: those of the other terms for "same", else as `class_weights` says."""
    if class_weights == "same":
        return of_stage_one
    return class_weight_table(class_weights, len(of_stage_one))


def check_thresholds(mix: Mix, unsup_loss: str) -> None:
    """Raises a UserError if the mix needs thresholds that this loss does not have."""
    if mix.needs_thresholds and unsup_loss != "adaptive_focal":
        raise UserError(
            f'long_tail_choice is "thresholds", but unsup_loss="{unsup_loss}" has none '
            'for the classes: use "adaptive_focal", or long_tail_choice="uniform".'
        )


def in_target_style(batch: Mapping, beta: float) -> Mapping:
    """The batch with all source images in the style of the target's, `fourier_style`.

    They become whole numbers again, as if they had been written to files.  beta = 0
    changes nothing.
    """
    if not beta:
        return batch
    target = batch["target"]["image"]

    def translated(part):
        image = fourier_style(part["image"], target, beta)
        return {**part, "image": jnp.round(image).astype(jnp.uint8)}

    others = {name: translated(x) for name, x in batch.items() if name != "target"}
    return {**batch, **others}


def frozen_logits(forward: Callable, network: Network, image: jax.Array) -> jax.Array:
    """[B, H, W, C] of the network as an evaluation runs it, without a gradient."""
    prediction, _ = forward(*network, image, train=False)
    return jax.lax.stop_gradient(prediction.logits)


def numbers_to_paste(key: jax.Array, pastes: jax.Array, choice: str) -> jax.Array:
    """How many classes each image gets.

    Args:
      key: one key for the batch.
      pastes: bool [B], whether it gets any.
      choice: "uniform": two; "thresholds": two to four.

    Returns:
      int32 [B].
    """
    low, high = COUNTS[choice]
    numbers = jax.random.randint(key, pastes.shape, low, high + 1)
    return jnp.where(pastes, numbers, 0)


def classes_to_paste(
    key: jax.Array,
    thresholds: jax.Array | None,
    filled: jax.Array,
    batch_size: int,
    most: int,
    choice: str,
) -> jax.Array:
    """Which ones, of those that the bank holds.

    Args:
      key: one key for the batch.
      thresholds: [C], for the choice "thresholds".
      filled: bool [C], of the bank.
      batch_size: B.
      most: N, for each image.
      choice: "uniform": different ones, equally likely; "thresholds": with replacement
        and the probabilities softmax(1 / threshold).

    Returns:
      int32 [B, N]; `IGNORE` where no class is left.
    """
    by_thresholds = choice == "thresholds"
    log_weights = 1 / thresholds if by_thresholds else jnp.zeros(filled.shape)
    return mixing.draw_classes(
        key, log_weights, filled, batch_size, most, replace=by_thresholds
    )


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
      UserError: no such stream, or one without classes.
    """
    crops = stream(sources.batch, "paste", "long-tail pasting")
    if "class" not in crops:
        raise UserError(
            "data.streams.paste does not say which class a crop holds: use "
            f"{_STREAMS['paste']}."
        )
    bank = mixing.refresh_bank(memory["bank"], crops)
    drawn = classes_to_paste(
        key, sources.thresholds, bank["filled"], len(label), most, choice
    )
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
