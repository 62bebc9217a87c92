"""Mixing images with all that belongs to them: on the device, keyed, batched.

Arrays and a key in, arrays out; every shape is fixed, so all of it runs under `jit`.
An example's random numbers follow from the key and its place in the batch alone.

A set of classes is bool [B, K] with K = C + 1: a slot for each class, and slot C for
pixels without one (`IGNORE` and any other label of C or more).
"""

from uda_jax.mixing.boundaries import (
    boundary_mask,
    check_windows,
    distance_weights,
)
from uda_jax.mixing.classes import (
    class_mask,
    expand_related,
    half_of,
    present_classes,
    random_ranks,
)
from uda_jax.mixing.cutmix import cutmix, cutmix_boxes, first_box_that_fits
from uda_jax.mixing.images import class_mix, soft_mix
from uda_jax.mixing.long_tail import (
    draw_classes,
    empty_bank,
    paste_classes,
    refresh_bank,
)
from uda_jax.mixing.related import RELATED, related_table

__all__ = [
    "RELATED",
    "boundary_mask",
    "check_windows",
    "class_mask",
    "class_mix",
    "cutmix",
    "cutmix_boxes",
    "distance_weights",
    "draw_classes",
    "empty_bank",
    "expand_related",
    "first_box_that_fits",
    "half_of",
    "paste_classes",
    "present_classes",
    "random_ranks",
    "refresh_bank",
    "related_table",
    "soft_mix",
]
