"""How sure a network is of unlabelled images: a score, a ranking, an easy part.

Pan et al., "Unsupervised Intra-domain Adaptation for Semantic Segmentation through
Self-Supervision" (IntraDA), CVPR 2020, section 3.2, https://arxiv.org/abs/2004.07703,
and its released code.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from uda_jax.errors import UserError
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
