"""Minicity's photography: what a lens, a sensor and a compressor do to a picture."""

from functools import lru_cache

import cv2
import numpy as np

from uda_jax.data.minicity_style import City


@lru_cache(maxsize=1)
def _grain() -> np.ndarray:
    """A sensor's noise float32 [384,768,3], standard deviation about 1, partly grey."""
    fine = np.random.default_rng(20220823).standard_normal((384, 768, 3), np.float32)
    return 0.6 * fine + 0.8 * fine.mean(-1, keepdims=True)


def photograph(image: np.ndarray, city: City, rng: np.random.Generator) -> np.ndarray:
    """Applies the camera of `city`: uint8 [H,W,3] RGB -> uint8 [H,W,3] RGB.

    In this order: lens blur, saturation, contrast, exposure, warmth, vignette, sensor
    noise, JPEG.  The label needs none of it: nothing moves.
    """
    h, w = image.shape[:2]
    sigma = rng.uniform(*city.blur)
    if sigma > 0.05:
        image = cv2.GaussianBlur(image, (0, 0), sigma)
    # Saturation, contrast, exposure and warmth are one affine map of a colour.
    saturation, contrast = rng.uniform(*city.saturation), rng.uniform(*city.contrast)
    warmth = rng.uniform(*city.warmth)
    gain = rng.uniform(*city.exposure) * np.array([[1 + warmth], [1], [1 - warmth]])
    gray = np.tile([0.299, 0.587, 0.114], (3, 1))
    turn = contrast * (saturation * np.eye(3) + (1 - saturation) * gray)
    affine = gain * np.column_stack([turn, np.full(3, 124 * (1 - contrast))])
    dark, noise = rng.uniform(*city.vignette), rng.uniform(*city.noise)
    if dark == 0 and noise == 0:
        out = cv2.transform(image, affine)
    else:
        x = cv2.transform(image.astype(np.float32), affine.astype(np.float32))
        rows = np.linspace(-1, 1, h, dtype=np.float32)[:, None]
        columns = np.linspace(-1, 1, w, dtype=np.float32)[None]
        shade = cv2.pow(rows**2 + columns**2, 1.5)
        shade *= -dark / 2**1.5
        shade += 1
        x = cv2.multiply(x, cv2.merge([shade, shade, shade]), dst=x)
        grain = _grain()
        top = rng.integers(0, grain.shape[0] - h)
        left = rng.integers(0, grain.shape[1] - w)
        grain = grain[top : top + h, left : left + w]
        out = cv2.addWeighted(x, 1.0, grain, noise, 0.0, dtype=cv2.CV_8U)
    if city.jpeg_quality is not None:
        quality = int(rng.integers(*city.jpeg_quality))
        _, data = cv2.imencode(
            ".jpg", out[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality]
        )
        out = cv2.cvtColor(cv2.imdecode(data, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
    return out
