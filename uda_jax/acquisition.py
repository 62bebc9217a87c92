"""How sure a network is of unlabelled images: scores, rankings, what to label next.

The first half (an easy and a hard part): Pan et al., "Unsupervised Intra-domain
Adaptation for Semantic Segmentation through Self-Supervision" (IntraDA), CVPR 2020,
section 3.2, https://arxiv.org/abs/2004.07703, and its released code.  The second
(images that a person labels next): SS-ADA's released code.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from uda_jax.errors import UserError, did_you_mean
from uda_jax.losses.pixels import log

# Classes whose presence lowers the normalised score, so that images that show many of
# them count as easier than their entropy says.
RARE = (
    *("wall", "fence", "pole", "traffic light", "traffic sign", "terrain", "rider"),
    *("truck", "bus", "train", "motorcycle"),
)


def entropy_score(probs: jax.Array) -> jax.Array:
    """Mean over pixels and classes of -p log(p + 1e-30) / log C.

    That is a C-th of the mean normalised entropy; the paper's has no 1 / C, which
    changes no order.

    Args:
      probs: [B, H, W, C], which sum to 1 over C.

    Returns:
      float32 [B], from 0 (certain) to 1 / C (every class as likely).
    """
    return jnp.mean(-probs * log(probs), (1, 2, 3)) / jnp.log(probs.shape[-1])


def rare_factor(present: np.ndarray, classes: Sequence[str]) -> np.ndarray:
    """IntraDA's entropy normalisation: (R - r) / R + 0.5, a factor on the score.

    Args:
      present: bool [N, C], the classes that each image's prediction shows.
      classes: C names.

    Returns:
      float64 [N] in [0.5, 1.5]; R of the C classes are among `RARE`, and an image shows
      r of them.

    Raises:
      UserError: none of the classes is rare.

    Difference from the original: there R = 11, of Cityscapes' 19 classes; here as many
    of them as the label space has.
    """
    rare = np.isin(classes, RARE)
    if not rare.any():
        raise UserError(
            "--normalize counts rare classes, and the label space has none of "
            f"{', '.join(RARE)}: leave it out."
        )
    number = rare.sum()
    return (number - present[:, rare].sum(1)) / number + 0.5


def ranking(scores: np.ndarray) -> np.ndarray:
    """Indices from the lowest score to the highest, equal ones in their own order."""
    return np.argsort(scores, kind="stable")


def easy_count(count: int, fraction: float) -> int:
    """How many of `count` ranked images are easy: floor(count * fraction).

    Raises:
      UserError: a fraction outside (0, 1], or so small that no image would be easy.
    """
    if not 0 < fraction <= 1:
        raise UserError(
            f"--easy_fraction={fraction} is outside (0, 1]: give the share of the "
            "images that are easy, 1 for all of them."
        )
    easy = int(count * fraction)
    if easy == 0:
        raise UserError(
            f"--easy_fraction={fraction} of {count} images leaves no easy one: give "
            "a larger share, 1 for all of them, or more images."
        )
    return easy


# --- Active rounds (SS-ADA) -----------------------------------------------------------


def entropy_map(probs: jax.Array) -> jax.Array:
    """Entropy of each pixel: -sum_c p_c log2(p_c + 1e-10) / log2 C.

    Args:
      probs: [B, H, W, C], which sum to 1 over C.

    Returns:
      float32 [B, H, W], from 0 (certain) to 1 (every class as likely).
    """
    bits = -jnp.sum(probs * jnp.log2(probs + 1e-10), axis=-1)
    return bits / jnp.log2(probs.shape[-1])


def confidence_map(probs: jax.Array) -> jax.Array:
    """Largest probability of each pixel: [B, H, W, C] -> [B, H, W] in [1 / C, 1]."""
    return jnp.max(probs, axis=-1)


def iou_map(probs: jax.Array, class_iou: jax.Array) -> jax.Array:
    """IoU of the class that each pixel is predicted to be, the lowest of equal ones.

    Args:
      probs: [B, H, W, C].
      class_iou: [C] in [0, 1], measured on images that have labels; 0 where absent.

    Returns:
      [B, H, W], dtype of class_iou.
    """
    return jnp.asarray(class_iou)[jnp.argmax(probs, axis=-1)]


# (probs, class_iou) -> [B, H, W]: how much an image would gain from a label, pixel by
# pixel.  The highest mean is labelled first; the published code takes the lowest mean
# confidence and the lowest mean IoU, which is the same order.
STRATEGIES: dict[str, Callable | None] = {
    "entropy": lambda probs, class_iou: entropy_map(probs),
    "confidence": lambda probs, class_iou: 1 - confidence_map(probs),
    "iou": lambda probs, class_iou: 1 - iou_map(probs, class_iou),
    "entropy_iou_sum": lambda probs, class_iou: (
        entropy_map(probs) + 1 - iou_map(probs, class_iou)
    ),
    "random": None,  # needs no network: `random_scores`
}


def image_scores(
    strategy: str, probs: jax.Array, class_iou: jax.Array | None = None
) -> jax.Array:
    """Score of each image, the highest to be labelled first: the mean of a pixel map.

    "entropy": normalised entropy; "confidence": 1 - the largest probability; "iou": 1 -
    the IoU of the predicted class; "entropy_iou_sum": entropy + 1 - that IoU.  The last
    one is our reading of the "Entropy-IoU Sum" in SS-ADA's README: the published code
    has none.

    Args:
      strategy: a name of `STRATEGIES` but "random"; static under jit.
      probs: [B, H, W, C], which sum to 1 over C.
      class_iou: [C] in [0, 1]; the strategies without IoU do without it.

    Returns:
      float32 [B]; the denominator of the mean is H * W.

    Raises:
      UserError: an unknown name, "random", or a strategy that needs class_iou and
        got none.
    """
    if strategy not in STRATEGIES:
        raise UserError(
            f'strategy is "{strategy}"{did_you_mean(str(strategy), STRATEGIES)}; '
            f"allowed are {', '.join(STRATEGIES)}."
        )
    score = STRATEGIES[strategy]
    if score is None:
        raise UserError(
            f'strategy "{strategy}" looks at no prediction: take random_scores.'
        )
    if class_iou is None and "iou" in strategy:
        raise UserError(f'strategy "{strategy}" needs class_iou, one IoU per class.')
    return jnp.mean(score(probs, class_iou), (1, 2), dtype=jnp.float32)


def random_scores(names: Sequence[str], *, seed: int, round_index: int) -> np.ndarray:
    """The strategy "random": uniform numbers, drawn on the host.

    A function of the seed, the round and the names alone: the order in which the names
    come changes no image's score.  The published code draws without a seed.

    Args:
      names: N different names of images.
      seed: at least 0.
      round_index: at least 0.

    Returns:
      float64 [N] in [0, 1).
    """
    scores = np.empty(len(names))
    by_name = sorted(range(len(names)), key=names.__getitem__)
    scores[by_name] = np.random.default_rng([seed, round_index]).random(len(names))
    return scores


def select(names: Sequence[str], scores: np.ndarray, count: int) -> list[int]:
    """Indices of the `count` highest scores, the highest first, equal ones by name.

    Args:
      names: N names of images.
      scores: [N].
      count: in [0, N].

    Raises:
      UserError: not one score for each name, a score that is not finite, or a count
        outside of [0, N].

    Difference from the original: there equal scores keep the order of a file, which
    comes from an unordered set.
    """
    values = np.asarray(scores, np.float64)
    if values.shape != (len(names),):
        raise UserError(
            f"there are scores of shape {values.shape} for {len(names)} images: give "
            "one score for each."
        )
    if not np.isfinite(values).all():
        first = int(np.argmin(np.isfinite(values)))
        raise UserError(
            f"the score of {names[first]} is {values[first]}: only finite scores can "
            "be ranked, so look at the network's output for this image."
        )
    if not 0 <= count <= len(names):
        raise UserError(
            f"count is {count}, but {len(names)} images are there to select from: give "
            f"a number from 0 to {len(names)}."
        )
    order = sorted(range(len(names)), key=lambda i: (-values[i], names[i]))
    return order[:count]
