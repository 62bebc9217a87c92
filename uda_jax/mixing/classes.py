"""Which classes of a label are mixed into another image, and where they are.

Class mixing: Olsson et al., ClassMix (WACV 2021), and DACS (Tranheden et al., WACV
2021); here in the form of TUFL, stage two (Yan et al., T-ITS 2023, section III-C, and
the released code).
"""

import jax
import jax.numpy as jnp


def present_classes(
    label: jax.Array,
    num_classes: int,
    *,
    with_ignore: bool = False,
    per_batch: bool = False,
) -> jax.Array:
    """The classes that a label holds.

    Args:
      label: int [B, H, W]; C or more is no class.
      num_classes: C.
      with_ignore: pixels without a class count as a class too, as in TUFL; else slot C
        is False.
      per_batch: what any example holds, for all of them.

    Returns:
      bool [B, C + 1].
    """
    classes = jnp.arange(num_classes + 1)
    held = jax.vmap(lambda c: (_slots(label, num_classes) == c).any((1, 2)), out_axes=1)
    present = held(classes) & (with_ignore | (classes < num_classes))
    if per_batch:
        present = jnp.broadcast_to(present.any(0), present.shape)
    return present


def random_ranks(
    key: jax.Array, present: jax.Array, *, per_batch: bool = False
) -> jax.Array:
    """The present classes in a random order, all orders equally likely.

    `random_ranks(key, present) < count` chooses `count` of them without replacement.

    Args:
      key: one key for the batch.
      present: bool [B, K].
      per_batch: one order for all examples, which hold the same classes.

    Returns:
      int32 [B, K]: each class's place in the order, from 0; K where absent.
    """
    batch_size, slots = present.shape
    scores = jax.random.uniform(key, (1 if per_batch else batch_size, slots))
    order = jnp.argsort(jnp.where(present, scores, 2), axis=1)
    ranks = jnp.argsort(order, axis=1).astype(jnp.int32)
    return jnp.where(present, ranks, slots)


def half_of(present: jax.Array) -> jax.Array:
    """int32 [B]: half of the number of classes in `present` [B, K], rounded up."""
    return (present.sum(1, dtype=jnp.int32) + 1) // 2


def class_mask(label: jax.Array, chosen: jax.Array) -> jax.Array:
    """Where the label is one of the chosen classes.

    Args:
      label: int [B, H, W]; K - 1 or more is slot K - 1.
      chosen: bool [B, K].

    Returns:
      bool [B, H, W].
    """
    slots = _slots(label, chosen.shape[1] - 1)
    return jax.vmap(lambda table, slot: table[slot])(chosen, slots)


def expand_related(
    ranks: jax.Array, counts: jax.Array, present: jax.Array, table: jax.Array
) -> jax.Array:
    """The first classes of an order with those related to them, up to half of all.

    One after the other of the first `counts` classes brings itself and the present
    classes of its row of the table; the first one that makes it at least floor(n / 2)
    classes, n the number of classes present, is the last one.  Slot C counts in n, as
    in TUFL, but is itself never chosen.

    Args:
      ranks: int32 [B, K], of `random_ranks`.
      counts: int32 [B], how many classes of the order to look at.
      present: bool [B, K].
      table: bool [C, C], of `related_table`.

    Returns:
      bool [B, K].
    """
    ranks, counts = ranks[:, :-1], counts[:, None]
    brought = table & present[:, None, :-1] & (ranks < counts)[..., None]
    earlier = ranks[:, None, :] < ranks[..., None]
    # What is there before each class's turn: [B, C, C].  It only grows along the order,
    # so that classes which came too late need no exception.
    there = (earlier[..., None] & brought[:, None]).any(2)
    enough = jnp.maximum(present.sum(1, keepdims=True) // 2, 1)
    chosen = (brought & (there.sum(-1) < enough)[..., None]).any(1)
    return jnp.pad(chosen, ((0, 0), (0, 1)))


def _slots(label, num_classes):
    return jnp.minimum(label.astype(jnp.int32), num_classes)
