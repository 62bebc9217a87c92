"""Weights of the classes in a loss: TUFL's tables, and SS-ADA's two formulas.

TUFL, Yan et al., T-ITS 2023 (released code): 1 / ln(1.10 + frequency of the class's
pixels in the source dataset), then multiplied by hand for rare classes.  SS-ADA
(released code): between 1 and an upper value, anew in each round of labelling.
"""

import jax
import jax.numpy as jnp
import numpy as np

from uda_jax.errors import UserError, did_you_mean

# Of Cityscapes' 19 train ids; they fit GTA5's frequencies better than Cityscapes'.
_SMALL_19 = (
    2.6236585428, 5.5961236204, 3.9189861303, 8.7053833808, 9.7107111440,
    9.4179556757, 10.2929955131, 10.3435307278, 5.8592437923, 8.5068121106,
    4.4264025018, 10.0758346294, 10.2337567450, 8.1307275555, 8.8892917753,
    8.7971732200, 9.0866814306, 10.2836953810, 10.1535218175,
)  # fmt: skip
# SYNTHIA's frequencies, the 16 classes that it shares with Cityscapes.
_SMALL_16 = (
    3.9156741461, 3.8138594401, 2.9521466392, 9.8656900559, 10.1558227708,
    9.5205576792, 10.4330328672, 10.3820529373, 5.2590128369, 6.1879896149,
    7.4364412190, 10.0265587597, 7.4411937767, 8.7787156941, 10.2429170872,
    10.2690354143,
)  # fmt: skip
# CrossCity's 13 classes are these rows of the 19.
_IDS_13 = (0, 1, 2, 6, 7, 8, 10, 11, 12, 13, 15, 17, 18)

_SMALL = {
    13: tuple(_SMALL_19[i] for i in _IDS_13),
    16: _SMALL_16,
    19: _SMALL_19,
}

# name -> number of classes -> {train id: factor on the small weight}
_FACTORS = {
    "small": {13: {}, 16: {}, 19: {}},
    "middle": {
        13: {8: 2.0, 11: 2.0, 12: 2.0},
        16: {11: 2.0, 12: 2.0, 13: 2.0, 14: 2.0, 15: 2.0},
        19: {12: 2.0, 16: 2.0, 17: 2.0, 18: 2.0},
    },
    "large": {
        13: {8: 2.4, 11: 3.0, 12: 2.4},
        16: {10: 1.2, 11: 2.4, 12: 2.4, 13: 2.4, 14: 2.4, 15: 3.0},
        19: {12: 2.4, 16: 3.0, 17: 3.0, 18: 2.4},
    },
}

# Computed from a run's own source labels, by `from_frequencies`.
FREQUENCIES = "frequencies"
NAMES = ("none", *_FACTORS, FREQUENCIES)


def class_weights(weights: str | tuple[float, ...], num_classes: int) -> np.ndarray:
    """Looks a table of class weights up.

    Args:
      weights: "none" (all ones), "small", "middle" or "large" (the original's
        `weight_mode`; tables for 13, 16 and 19 classes), or one number per class.  In
        a config "frequencies" too, which the run replaces by numbers of its own data.
      num_classes: C.

    Returns:
      [C] float32.

    Raises:
      UserError: unknown name, no table for this number of classes, or another number
        of weights than classes; "frequencies", as there are no data here.
    """
    if not isinstance(weights, str):
        values = np.asarray(weights, np.float32)
        if values.shape != (num_classes,) or not (
            np.all(np.isfinite(values)) and np.all(values >= 0)
        ):
            raise UserError(
                f"class_weights is {tuple(weights)}, but one finite weight >= 0 for "
                f"each of the {num_classes} classes is needed."
            )
        return values
    if weights not in NAMES:
        raise UserError(
            f'class_weights is "{weights}"{did_you_mean(weights, NAMES)}; allowed are '
            f"{', '.join(NAMES)}, or one number per class."
        )
    if weights == FREQUENCIES:
        raise UserError(
            f'class_weights="{FREQUENCIES}" are counted in a run\'s labels: outside of '
            "a run give the numbers of class_weights.from_frequencies."
        )
    if weights == "none":
        return np.ones(num_classes, np.float32)
    if num_classes not in _SMALL:
        raise UserError(
            f'class_weights is "{weights}", a table that exists for '
            f"{', '.join(map(str, _SMALL))} classes but not for {num_classes}; use "
            '"none" or give one number per class.'
        )
    values = np.array(_SMALL[num_classes])
    for train_id, factor in _FACTORS[weights][num_classes].items():
        values[train_id] *= factor
    return values.astype(np.float32)


def from_frequencies(frequencies: np.ndarray) -> np.ndarray:
    """w_c = 1 / ln(1.10 + f_c): the formula that the tables above come from.

    Frequencies such as `uda_jax.data.statistics.ClassCounts.frequencies`; a class that
    does not occur weighs 1 / ln(1.10) = 10.49.  The frequencies behind the published
    tables sum to 1.06 (19 classes) and 1.02 (16), so they are no shares of one total:
    expect weights near the tables, not the tables.

    Args:
      frequencies: [C] in [0, 1].

    Returns:
      [C] float32.

    Raises:
      UserError: a frequency is not in [0, 1].
    """
    values = np.asarray(frequencies, np.float64)
    if not np.all((values >= 0) & (values <= 1)):
        raise UserError(
            f"class frequencies are {values.tolist()}: give the share of each class, "
            "from 0 to 1."
        )
    return (1 / np.log(1.10 + values)).astype(np.float32)


def from_iou(iou: jax.Array, upper: float = 2.0) -> jax.Array:
    """w_c = 1 + (1 - IoU_c) * (upper - 1): SS-ADA's "iou_class".  Runs under jit.

    Args:
      iou: [C] in [0, 1], not percent; 0 for a class that does not occur.
      upper: the weight of a class with IoU 0, at least 1.

    Returns:
      [C] float32 in [1, upper].

    Raises:
      UserError: upper is below 1 or not finite.
    """
    return _between_1_and(upper, 1 - jnp.asarray(iou, jnp.float32))


def from_counts(counts: jax.Array, upper: float = 2.0) -> jax.Array:
    """w_c = 1 + r_c * (upper - 1): SS-ADA's "num_class".  Runs under jit.

    r_c = (median(f) / f_c) / max_k (median(f) / f_k) for the frequencies f = count /
    total; median and total cancel, which leaves r_c = min(counts) / count_c.

    Args:
      counts: [C] pixels of each class, at least 0.  A class with 0 is treated as if it
        had the smallest count above 0; if all are 0, all weigh `upper`, as equal counts
        do.
      upper: the weight of the rarest class, at least 1.

    Returns:
      [C] float32 in [1, upper].

    Raises:
      UserError: upper is below 1 or not finite.

    Difference from the original: there a class without pixels gives inf or NaN.
    """
    values = jnp.asarray(counts, jnp.float32)
    present = values > 0
    rarest = jnp.min(jnp.where(present, values, jnp.inf))
    return _between_1_and(upper, jnp.where(present, rarest / values, 1.0))


def _between_1_and(upper: float, need: jax.Array) -> jax.Array:
    """1 + need * (upper - 1) for need [C] in [0, 1]."""
    if not 1 <= upper < np.inf:
        raise UserError(
            f"upper is {upper}, the largest class weight: give a finite number of at "
            "least 1."
        )
    return 1 + need * (upper - 1)
