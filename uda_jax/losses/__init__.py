"""Pure losses on logits [..., C]: arrays in, one float32 scalar out.

Shapes: logits [B, H, W, C] (any leading axes do), labels [B, H, W] integers in [0, C)
or IGNORE; every other label value counts as ignored too (the readers raise for those).
Every mean is sum / max(count, 1): an empty mask gives 0 with a zero gradient (the
originals give NaN there).
"""

from uda_jax.losses.adversarial import domain_loss
from uda_jax.losses.confidence import confidence_entropy, entropy, max_square
from uda_jax.losses.consistency import neutral_cross_entropy, unsup_focal
from uda_jax.losses.minimisation import (
    image_wise_weights,
    normalized_entropy,
    self_information,
    soft_cross_entropy,
    squared_probabilities,
)
from uda_jax.losses.pixels import (
    confident,
    confident_mean,
    confident_share,
    masked_mean,
)
from uda_jax.losses.pseudo_labels import guidance_label, pseudo_label
from uda_jax.losses.self_training import (
    entropy_balance,
    entropy_quantile,
    feature_distance,
    majority_label,
    pixel_entropy,
)
from uda_jax.losses.supervised import (
    cross_entropy,
    ohem_cross_entropy,
    prob_ohem_cross_entropy,
)

__all__ = [
    "confidence_entropy",
    "confident",
    "confident_mean",
    "confident_share",
    "cross_entropy",
    "domain_loss",
    "entropy",
    "entropy_balance",
    "entropy_quantile",
    "feature_distance",
    "guidance_label",
    "image_wise_weights",
    "majority_label",
    "masked_mean",
    "max_square",
    "neutral_cross_entropy",
    "normalized_entropy",
    "ohem_cross_entropy",
    "pixel_entropy",
    "prob_ohem_cross_entropy",
    "pseudo_label",
    "self_information",
    "soft_cross_entropy",
    "squared_probabilities",
    "unsup_focal",
]
