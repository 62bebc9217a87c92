"""Class probabilities of whole images: one pass, or overlapping windows.

Everything here has static shapes: for one image size it compiles once, and every window
of every scale goes through one compiled forward pass.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from uda_jax.models.layers import resize_bilinear


def window_starts(length: int, window: int, stride: int) -> list[int]:
    """First pixels of the windows that cover [0, length).

    n = ceil((length - window) / stride) + 1 windows, `stride` apart, the last one moved
    back inside.  A length up to the window needs one, at 0.
    """
    count = max(0, -(-(length - window) // stride)) + 1
    return [max(0, min(i * stride, length - window)) for i in range(count)]


def chip_stride(window: tuple[int, int]) -> tuple[int, int]:
    """TUFL's stride: ceil(5/6 of the window), per axis."""
    return tuple(-(-5 * side // 6) for side in window)


def whole_probs(
    forward: Callable[[jax.Array], jax.Array],
    image: jax.Array,
    *,
    scales: Sequence[float] = (1.0,),
    flip: bool = False,
    size: tuple[int, int] | None = None,
) -> jax.Array:
    """Mean over scales (and mirror images) of softmax(forward(image)).

    Images and probabilities are resized bilinearly with align_corners=True.

    Args:
      forward: normalised float32 [B, h, w, 3] -> logits, [B, h, w, C] or already
        [B, *size, C].
      image: normalised float32 [B, H, W, 3].
      scales: factors of the sides; the network sees (int(H*s), int(W*s)).
      flip: also look at each image mirrored left to right.
      size: (height, width) of the result; the image's by default.

    Returns:
      [B, *size, C] float32 probabilities.
    """
    own = image.shape[1:3]
    total = 0.0
    for scale in scales:
        scaled = resize_bilinear(image, _scaled(own, scale), align_corners=True)
        probs = _softmax_sum(forward, scaled, flip)
        total += resize_bilinear(probs, size or own, align_corners=True)
    return total / (len(scales) * (1 + flip))


def window_probs(
    forward: Callable[[jax.Array], jax.Array],
    image: jax.Array,
    *,
    window: tuple[int, int],
    stride: tuple[int, int],
    scales: Sequence[float] = (1.0,),
    flip: bool = False,
    average: bool = True,
    windows_per_pass: int = 1,
) -> jax.Array:
    """Sum over scales of softmax(forward(window)) added up over overlapping windows.

    A side shorter than the window is padded with zeros (the mean colour), the margin
    halved, its smaller half first.  The map of each scale is resized to [H, W],
    bilinearly with align_corners=True.

    Args:
      forward: normalised float32 [n, *window, 3] -> logits [n, *window, C].
      image: normalised float32 [B, H, W, 3].
      window, stride: (height, width); windows lie `stride` apart, the last one is moved
        back inside.
      scales: factors of the sides; windows are cut from (int(H*s), int(W*s)).
      flip: also look at each window mirrored left to right.
      average: divide by the number of windows over each pixel, and by the number of
        scales and mirrors, so that the result is a probability.  Without it the result
        is the plain sum, as released by TUFL (evaluation with chips): where windows
        overlap, a scale then weighs more.
      windows_per_pass: n; how many windows one forward pass takes.

    Returns:
      [B, H, W, C] float32, probabilities or (`average=False`) their sums.
    """
    size, batch = image.shape[1:3], image.shape[0]
    plans, chips = [], []
    for scale in scales:
        scaled = resize_bilinear(image, _scaled(size, scale), align_corners=True)
        margins = [
            max(0, w - s) for w, s in zip(window, scaled.shape[1:3], strict=True)
        ]
        before = [m // 2 for m in margins]
        pads = [(b, m - b) for b, m in zip(before, margins, strict=True)]
        padded = jnp.pad(scaled, [(0, 0), *pads, (0, 0)])
        starts = [
            window_starts(length, w, s)
            for length, w, s in zip(padded.shape[1:3], window, stride, strict=True)
        ]
        plans.append((scaled.shape[1:3], pads, padded.shape[1:3], starts))
        chips.append(_cut(padded, _corners(starts), window))
    probs = _map_windows(
        lambda x: _softmax_sum(forward, x, flip),
        jnp.concatenate(chips).reshape(-1, *window, 3),
        windows_per_pass,
    )
    probs = probs.reshape(-1, batch, *probs.shape[1:])

    total = 0.0
    for scaled_size, pads, padded_size, starts in plans:
        corners = _corners(starts)
        mine, probs = probs[: len(corners)], probs[len(corners) :]
        canvas = jnp.zeros((batch, *padded_size, probs.shape[-1]), probs.dtype)
        canvas = _add_up(canvas, mine, corners)
        if average:
            canvas = _mean(canvas, starts, window)
        (top, _), (left, _) = pads
        height, width = scaled_size
        inner = canvas[:, top : top + height, left : left + width]
        total += resize_bilinear(inner, size, align_corners=True)
    return total / (len(scales) * (1 + flip)) if average else total


def window_logits(
    forward: Callable[[jax.Array], jax.Array],
    image: jax.Array,
    *,
    window: tuple[int, int],
    stride: tuple[int, int],
    windows_per_pass: int = 1,
) -> jax.Array:
    """Mean of forward(window) over the windows that lie over each pixel: mmseg's.

    The softmax is left to who asks.  Nothing is padded: along a side shorter than the
    window a window is as long as the image.

    Args:
      forward: normalised float32 [n, h, w, 3] -> logits [n, h, w, C].
      image: normalised float32 [B, H, W, 3].
      window, stride, windows_per_pass: see `window_probs`.

    Returns:
      [B, H, W, C] float32 logits.
    """
    batch, *size = image.shape[:3]
    window = tuple(min(pair) for pair in zip(window, size, strict=True))
    starts = [
        window_starts(length, w, s)
        for length, w, s in zip(size, window, stride, strict=True)
    ]
    corners = _corners(starts)
    logits = _map_windows(
        lambda x: forward(x).astype(jnp.float32),
        _cut(image, corners, window).reshape(-1, *window, 3),
        windows_per_pass,
    )
    logits = logits.reshape(-1, batch, *logits.shape[1:])
    canvas = jnp.zeros((batch, *size, logits.shape[-1]), logits.dtype)
    return _mean(_add_up(canvas, logits, corners), starts, window)


def _scaled(size, scale):
    return tuple(int(side * scale) for side in size)


def _corners(starts):
    """[n, 2] int32: (top, left) of every window, row by row."""
    tops, lefts = starts
    return np.array([(t, left) for t in tops for left in lefts], np.int32)


def _mean(canvas, starts, window):
    """Sums over windows [B, H, W, C], by how many lie over each pixel."""
    rows, columns = (
        _coverage(own, side, length)
        for own, side, length in zip(starts, window, canvas.shape[1:3], strict=True)
    )
    return canvas / rows[:, None, None] / columns[:, None]


def _coverage(starts, window, length):
    """[length] float32: how many windows lie over each position of one axis."""
    counts = np.zeros(length, np.float32)
    for start in starts:
        counts[start : start + window] += 1
    return counts


def _cut(image, corners, window):
    """[B, H, W, 3] -> [n, B, *window, 3]"""
    shape = (image.shape[0], *window, image.shape[-1])
    cut = lambda c: jax.lax.dynamic_slice(image, (0, c[0], c[1], 0), shape)
    return jax.vmap(cut)(corners)


def _add_up(canvas, windows, corners):
    """Adds each of [n, B, h, w, C] to [B, H, W, C] at its corner, one by one."""

    def add(canvas, item):
        values, corner = item
        start = (0, corner[0], corner[1], 0)
        old = jax.lax.dynamic_slice(canvas, start, values.shape)
        return jax.lax.dynamic_update_slice(canvas, old + values, start), None

    return jax.lax.scan(add, canvas, (windows, corners))[0]


def _softmax_sum(forward, image, flip):
    probs = jax.nn.softmax(forward(image).astype(jnp.float32))
    if flip:
        mirrored = forward(image[:, :, ::-1]).astype(jnp.float32)
        probs += jax.nn.softmax(mirrored)[:, :, ::-1]
    return probs


def _map_windows(function, windows, per_pass):
    """function over [N, ...] in passes of `per_pass`; one compiled body for all."""
    count = windows.shape[0]
    per_pass = min(per_pass, count)
    passes = -(-count // per_pass)
    fill = passes * per_pass - count
    # The filling repeats windows; its results are dropped.
    windows = jnp.concatenate([windows, windows[:fill]]) if fill else windows
    if passes == 1:
        return function(windows)
    stacked = windows.reshape(passes, per_pass, *windows.shape[1:])
    out = jax.lax.map(function, stacked)
    return out.reshape(-1, *out.shape[2:])[:count]
