"""Minicity's photography: what a lens, a sensor and a compressor do to a picture."""

import cv2
import numpy as np

from uda_jax.data.minicity_style import City


def photograph(image: np.ndarray, city: City, rng: np.random.Generator) -> np.ndarray:
    """Applies the camera of `city`: uint8 [H,W,3] RGB -> uint8 [H,W,3] RGB.

    In this order: lens blur, saturation, contrast, exposure, warmth, vignette, sensor
    noise, JPEG.  The label needs none of it: nothing moves.
    """
    h, w = image.shape[:2]
    x = image.astype(np.float32)
    sigma = rng.uniform(*city.blur)
    if sigma > 0.05:
        x = cv2.GaussianBlur(x, (0, 0), sigma)
    gray = x @ np.array([0.299, 0.587, 0.114], np.float32)
    x = gray[..., None] + rng.uniform(*city.saturation) * (x - gray[..., None])
    x = 124 + rng.uniform(*city.contrast) * (x - 124)
    warmth = rng.uniform(*city.warmth)
    gain = rng.uniform(*city.exposure) * np.array([1 + warmth, 1, 1 - warmth])
    x = x * gain.astype(np.float32)
    dark = rng.uniform(*city.vignette)
    if dark > 0:
        rows = np.linspace(-1, 1, h, dtype=np.float32)[:, None]
        columns = np.linspace(-1, 1, w, dtype=np.float32)[None]
        x = x * (1 - dark * ((rows**2 + columns**2) / 2) ** 1.5)[..., None]
    noise = rng.uniform(*city.noise)
    if noise > 0:
        fine = rng.standard_normal((h, w, 3), np.float32)
        x = x + noise * (0.6 * fine + 0.8 * fine.mean(-1, keepdims=True))
    out = np.clip(np.round(x), 0, 255).astype(np.uint8)
    if city.jpeg_quality is not None:
        quality = int(rng.integers(*city.jpeg_quality))
        _, data = cv2.imencode(
            ".jpg", out[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality]
        )
        out = cv2.imdecode(data, cv2.IMREAD_COLOR)[..., ::-1]
    return np.ascontiguousarray(out)
