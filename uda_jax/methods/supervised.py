"""The supervised term that the methods share, and what one logs about it."""

import jax
import jax.numpy as jnp

from uda_jax import losses
from uda_jax.errors import UserError, did_you_mean
from uda_jax.models.model import Prediction

SOURCE_LOSSES = ("regular", "valid", "ohem")
HEADS = ("deep", "last")


def check_choice(name: str, value: str, allowed) -> None:
    """Raises a UserError with one sentence unless `value` is one of `allowed`."""
    if value not in allowed:
        raise UserError(
            f'{name} is "{value}"{did_you_mean(str(value), allowed)}; allowed are '
            f"{', '.join(allowed)}."
        )


def check_weights(**weights: float) -> None:
    """Raises a UserError unless each is at least 0."""
    for name, value in weights.items():
        if not value >= 0:
            raise UserError(f"{name} is {value}, but must be at least 0.")


def check_share(*, above_zero: bool = False, **shares: float) -> None:
    """Raises a UserError unless each is in [0, 1], with `above_zero` in (0, 1]."""
    for name, value in shares.items():
        if not 0 <= value <= 1 or (above_zero and value == 0):
            low = "above 0" if above_zero else "at least 0"
            raise UserError(f"{name} is {value}, but must be {low}, at most 1.")


def head_logits(prediction: Prediction, heads: str) -> tuple[jax.Array, ...]:
    """The main head's logits, and with "deep" those of the auxiliary heads after it."""
    if heads == "last":
        return (prediction.logits,)
    return (prediction.logits, *prediction.aux_logits)


def first_auxiliary(prediction: Prediction, option: str) -> jax.Array:
    """Logits [B, H, W, C] of a network's first auxiliary head.

    Args:
      prediction: of either domain.
      option: the method's option that asks for this head, for the message.

    Raises:
      UserError: the network has none.
    """
    if not prediction.aux_logits:
        raise UserError(
            f"{option} needs an auxiliary head and the network has none: turn it off "
            "(0 or False), or give the network one (deeplabv2: multi_level=True)."
        )
    return prediction.aux_logits[0]


def supervised_loss(
    logits: tuple[jax.Array, ...],
    label: jax.Array,
    class_weights: jax.Array,
    *,
    source_loss: str = "regular",
) -> jax.Array:
    """Mean over the heads of a cross-entropy.

    Args:
      logits: per head, [B, H, W, C].
      label: [B, H, W] train ids, IGNORE where unlabelled.
      class_weights: [C].
      source_loss: "regular": the mean over all pixels, ignored ones included; "valid":
        over those with a label (MaxSquare, ADVENT); "ohem": over the hard ones, those
        below probability 0.7 or at least a sixteenth of all.

    Returns:
      float32 scalar.
    """
    if source_loss == "ohem":
        terms = [
            losses.ohem_cross_entropy(
                head, label, class_weights, min_kept=label.size // 16
            )
            for head in logits
        ]
    else:
        normaliser = "valid" if source_loss == "valid" else "all"
        terms = [
            losses.cross_entropy(head, label, class_weights, normaliser=normaliser)
            for head in logits
        ]
    return sum(terms) / len(terms)


def source_terms(
    prediction: Prediction,
    label: jax.Array,
    class_weights: jax.Array,
    *,
    aux_weight: float,
    source_loss: str = "valid",
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """The main head's cross-entropy + aux_weight * the sum of the auxiliary heads'.

    MaxSquare's and ADVENT's form; their weight is 0.1.

    Args:
      prediction: of the source images.
      label: [B, H, W] train ids, IGNORE where unlabelled.
      class_weights: [C].
      aux_weight: lambda_seg, at least 0; 0 leaves the auxiliary heads out.
      source_loss: see `supervised_loss`.

    Returns:
      float32 scalar, and the terms to log.

    Raises:
      UserError: a weight, but no auxiliary head.
    """
    term = lambda head: supervised_loss(
        (head,), label, class_weights, source_loss=source_loss
    )
    total = main = term(prediction.logits)
    metrics = {"loss/source": main}
    if aux_weight:
        first_auxiliary(prediction, "aux_weight")
        aux = sum(map(term, prediction.aux_logits))
        total = main + aux_weight * aux
        metrics["loss/source_aux"] = aux
    return total, metrics


def training_scores(
    logits: jax.Array, label: jax.Array, of: str = "source"
) -> dict[str, jax.Array]:
    """Accuracy and IoU of the batch itself: a sign of life, no evaluation.

    Args:
      logits: [B, H, W, C].
      label: [B, H, W] train ids; ignored pixels do not count.
      of: what stands in the scores' names in place of 'source'.

    Returns:
      'train/source_accuracy': share of the labelled pixels that are right, and
      'train/source_miou': mean IoU; both in [0, 1], 0 without labelled pixels.  Like
      the original's log, the mean leaves out absent classes and those whose IoU is 1;
      where none is left it is 1 (and not NaN).
    """
    classes = jnp.arange(logits.shape[-1])
    valid = (label < logits.shape[-1])[..., None]
    predicted = (jnp.argmax(logits, -1)[..., None] == classes) & valid
    wanted = label[..., None] == classes
    axes = tuple(range(label.ndim))
    both = jnp.sum(predicted & wanted, axes)
    either = jnp.sum(predicted | wanted, axes)
    counted = both < either
    total = jnp.sum(wanted)
    iou = losses.masked_mean(both / jnp.maximum(either, 1), counted)
    perfect = jnp.where(total > 0, 1.0, 0.0)
    return {
        f"train/{of}_accuracy": jnp.sum(both) / jnp.maximum(total, 1),
        f"train/{of}_miou": jnp.where(jnp.any(counted), iou, perfect),
    }
