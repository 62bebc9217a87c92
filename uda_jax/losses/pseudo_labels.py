"""Labels that a network gives itself, IGNORE where it is not sure."""

import jax
import jax.numpy as jnp

from uda_jax.labels import IGNORE


def _probs(logits):
    return jax.nn.softmax(jax.lax.stop_gradient(logits).astype(jnp.float32))


def pseudo_label(logits: jax.Array, threshold: float) -> jax.Array:
    """argmax p where max p > threshold, else IGNORE.

    Args:
      logits: [..., C].
      threshold: of the largest probability, in [0, 1].

    Returns:
      [...] int32.
    """
    probs = _probs(logits)
    return jnp.where(probs.max(-1) > threshold, jnp.argmax(probs, -1), IGNORE)


def guidance_label(main: jax.Array, aux: jax.Array, threshold: float) -> jax.Array:
    """MaxSquare's multi-level self-produced guidance: what the two heads say together.

    argmax (p + q) / 2 where max p > threshold or max q > threshold, else IGNORE; p is
    the main head's probability, q the auxiliary one's.

    Args:
      main, aux: [..., C] logits.
      threshold: delta, in [0, 1].

    Returns:
      [...] int32: the label for the auxiliary head.  Chen et al., ICCV 2019, 3.4.
    """
    p, q = _probs(main), _probs(aux)
    sure = jnp.maximum(p.max(-1), q.max(-1)) > threshold
    return jnp.where(sure, jnp.argmax(p + q, -1), IGNORE)
