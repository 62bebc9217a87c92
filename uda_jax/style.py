"""Image style translation without a network: the target's look for the source's images.

Yang & Soatto, "FDA: Fourier Domain Adaptation for Semantic Segmentation", CVPR 2020,
https://arxiv.org/abs/2004.05498, section 3.1.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

from uda_jax.errors import UserError


def fourier_style(image: jax.Array, style: jax.Array, beta: float) -> jax.Array:
    """`image` with the amplitudes of `style` at low frequencies, its own phases kept.

    Per channel, F the two-dimensional Fourier transform, u and v whole frequencies down
    and across: |F(style)| exp(i angle F(image)) where |u|, |v| <= floor(beta min(H,
    W)), F(image) elsewhere; transformed back and clipped.  The window holds every
    frequency together with its negative, so that the result is real whether H and W are
    odd or even.  A frequency that `image` lacks has the phase 0.

    Args:
      image: [B, H, W, 3] uint8 or float, 0..255.
      style: the same shape, either dtype; each example's own.
      beta: in (0, 0.5), a Python number; the paper uses 0.01 to 0.09.  Below 1 / min(H,
        W) only the frequency 0, that is the channels' means, is exchanged.

    Returns:
      [B, H, W, 3] float32, 0..255.

    Raises:
      UserError: beta out of its range, or two shapes.

    Difference from the original: the window is centred on frequency 0, as the paper
    says, for any size; the result is clipped here, not where it is written.
    """
    if not 0 < beta < 0.5:
        raise UserError(f"beta is {beta}, but must be above 0 and below 0.5.")
    if image.shape != style.shape:
        raise UserError(
            f"the images are {image.shape} and those whose style they get are "
            f"{style.shape}: give both the same crop size and batch size."
        )
    height, width = image.shape[1:3]
    reach = math.floor(beta * min(height, width))
    down = np.abs(np.fft.fftfreq(height, 1 / height)) <= reach
    across = np.fft.rfftfreq(width, 1 / width) <= reach
    window = (down[:, None] & across)[..., None]

    def transform(x):
        return jnp.fft.rfft2(x.astype(jnp.float32), axes=(1, 2))

    spectrum = transform(image)
    amplitude = jnp.abs(spectrum)
    present = amplitude > 0
    phase = jnp.where(present, spectrum / jnp.where(present, amplitude, 1), 1)
    spectrum = jnp.where(window, jnp.abs(transform(style)) * phase, spectrum)
    back = jnp.fft.irfft2(spectrum, s=(height, width), axes=(1, 2))
    return jnp.clip(back, 0, 255)
