"""What a discriminator, and the network that fools it, are asked for."""

import jax
import jax.numpy as jnp

from uda_jax.errors import UserError

GANS = ("vanilla", "least_squares")


def domain_loss(scores: jax.Array, domain: int, gan: str = "vanilla") -> jax.Array:
    """How far a discriminator's scores are from saying `domain` everywhere.

    "vanilla" (Goodfellow et al., 2014): binary cross-entropy of sigmoid(z), which is
    ln(1 + exp(z)) for domain 0 and ln(1 + exp(-z)) for domain 1.  "least_squares" (Mao
    et al., ICCV 2017): (z - domain)^2.  Mean over all scores.

    Args:
      scores: [...] z, before any sigmoid.
      domain: 0 for source, 1 for target, in ADVENT and AdaptSegNet.
      gan: "vanilla" or "least_squares".

    Returns:
      float32 scalar, at least 0.
    """
    if gan not in GANS:
        raise UserError(f'gan is "{gan}": choose one of {", ".join(GANS)}.')
    scores = scores.astype(jnp.float32)
    if gan == "least_squares":
        return jnp.mean((scores - domain) ** 2)
    return jnp.mean(jax.nn.softplus(-scores if domain else scores))
