"""Long-tail pasting: crops known to hold a rare class, and their pixels on top.

TUFL draws a crop that holds the class whenever it pastes one (Yan et al., T-ITS 2023,
section III-C, and the released code).  Here every batch brings some such crops; a bank
on the device keeps the latest of each class, from which every example takes what it
needs.  So the class can be chosen on the device, by thresholds that live there.

A bank is {"image": uint8 [C, H, W, 3], "label": uint8 [C, H, W], "filled": bool [C]}.
"""

import jax
import jax.numpy as jnp

from uda_jax.labels import IGNORE
from uda_jax.mixing.classes import class_mask

Bank = dict[str, jax.Array]


def empty_bank(num_classes: int, size: tuple[int, int]) -> Bank:
    """A bank without crops, for crops of (height, width) `size`."""
    return {
        "image": jnp.zeros((num_classes, *size, 3), jnp.uint8),
        "label": jnp.full((num_classes, *size), IGNORE, jnp.uint8),
        "filled": jnp.zeros(num_classes, bool),
    }


def refresh_bank(bank: Bank, crops: dict[str, jax.Array]) -> Bank:
    """The bank with each crop in its class's place.

    Args:
      bank: see the module.
      crops: image uint8 [B, H, W, 3], label uint8 [B, H, W], class int [B]: the class
        that the crop is known to hold; `IGNORE` for a crop to leave out.  Of two crops
        of one class the later place wins.

    Returns:
      A new bank.
    """
    num_classes = bank["filled"].size
    classes = crops["class"].astype(jnp.int32)
    place = jnp.arange(classes.size)
    again = (classes == classes[:, None]) & (place > place[:, None])
    # A place out of range is dropped; each of the rest is written once.
    slots = jnp.where(again.any(1), num_classes, classes)

    def put(kept, new):
        return kept.at[slots].set(new, mode="drop")

    return {
        "image": put(bank["image"], crops["image"]),
        "label": put(bank["label"], crops["label"]),
        "filled": put(bank["filled"], True),
    }


def draw_classes(
    key: jax.Array,
    log_weights: jax.Array,
    filled: jax.Array,
    batch_size: int,
    most: int,
    *,
    replace: bool,
) -> jax.Array:
    """Classes to paste, with probabilities softmax(log_weights) over the filled ones.

    With the adaptive thresholds t of TUFL log_weights = 1 / t, so that uncertain
    classes come more often; zeros give every class the same chance.

    Args:
      key: one key for the batch.
      log_weights: float [C].
      filled: bool [C], the classes to draw from.
      batch_size: B, global.
      most: N, classes for each example.
      replace: a class may come again; else never twice (N is at most C then).

    Returns:
      int32 [B, N]; `IGNORE` where no class is left.
    """
    noise = jax.random.gumbel(key, (batch_size, most if replace else 1, filled.size))
    scores = jnp.where(filled, log_weights + noise, -jnp.inf)
    if replace:
        classes = jnp.argmax(scores, -1)
    else:
        # The largest ones of a single draw: Gumbel's top k.
        classes = jax.lax.top_k(scores[:, 0], most)[1]
    return jnp.where(filled[classes], classes, IGNORE).astype(jnp.int32)


def paste_classes(
    image: jax.Array,
    label: jax.Array,
    mask: jax.Array,
    bank: Bank,
    classes: jax.Array,
    counts: jax.Array,
    table: jax.Array,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Pastes the bank's crops of some classes onto a batch, one on top of the other.

    Of each crop, the pixels of its class and of the classes related to it.

    Args:
      image: float [B, H, W, 3] on the bank's scale of 0..255.
      label: int [B, H, W].
      mask: bool [B, H, W], becomes True where something is pasted.
      bank: see the module; crops of the images' size.
      classes: int32 [B, N], in the order of pasting.
      counts: int32 [B], how many of them to paste.
      table: bool [C, C], of `related_table`.

    Returns:
      image, label, mask.  A class that the bank has no crop of pastes nothing.
    """
    # Slot C, which `IGNORE` falls into, brings nothing.
    brings = jnp.pad(jnp.asarray(table) & bank["filled"][:, None], ((0, 1), (0, 1)))

    def paste(carry, row):
        image, label, mask = carry
        chosen, wanted = row
        crop = bank["label"][chosen]
        region = class_mask(crop, brings[chosen] & wanted[:, None])
        image = jnp.where(region[..., None], bank["image"][chosen], image)
        label = jnp.where(region, crop, label).astype(label.dtype)
        return (image, label, mask | region), None

    wanted = jnp.arange(classes.shape[1])[:, None] < counts
    rows = (jnp.minimum(classes.T, bank["filled"].size), wanted)
    return jax.lax.scan(paste, (image, label, mask), rows)[0]
