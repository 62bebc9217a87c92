"""How a network looks at an image: one pass or windows, scales, the mirror image."""

from collections.abc import Callable, Sequence
from typing import Any

import jax

from uda_jax.augment import normalize
from uda_jax.errors import UserError, did_you_mean
from uda_jax.models.layers import resize_bilinear
from uda_jax.sliding import chip_stride, whole_probs, window_probs

MODES = ("whole", "chips", "sliding")


def inference_options(
    mode: str = "whole",
    window: Sequence[int] | None = None,
    stride: Sequence[int] | None = None,
    scales: Sequence[float] = (1.0,),
    flip: bool = False,
) -> dict[str, Any]:
    """Checks how to look at an image and completes what follows from the rest.

    Args:
      mode: "whole": one pass over the image.  "chips": TUFL's evaluation, zero-padded
        windows 5/6 apart whose probabilities are summed as released (Yan et al., T-ITS
        2023; window 647 for CrossCity, 1024 for Cityscapes).  "sliding": windows whose
        probabilities are averaged where they overlap.
      window: (height, width) of a window; not for "whole".
      stride: (down, right) between windows of "sliding"; default 2/3 of the window.
      scales: factors of the sides, as in multi-scale testing.
      flip: also look at the mirror image.

    Returns:
      The static keyword arguments of `probabilities`.

    Raises:
      UserError: an unknown mode, or numbers that do not fit it.
    """
    if mode not in MODES:
        raise UserError(
            f'mode "{mode}" is unknown{did_you_mean(mode, MODES)}: choose one of '
            f"{', '.join(MODES)}."
        )
    scales = tuple(float(s) for s in scales)
    if not scales or min(scales) <= 0:
        raise UserError(f"scales={scales} must be positive numbers, 1.0 among others.")
    if mode == "whole":
        if window or stride:
            raise UserError(
                'mode "whole" takes no window or stride: remove them, or choose the '
                'mode "sliding".'
            )
        window = stride = None
    else:
        window = pair("window", window, f'mode "{mode}"')
        if mode == "chips":
            if stride:
                raise UserError(
                    'mode "chips" sets its own stride, 5/6 of the window: remove '
                    'stride or choose the mode "sliding".'
                )
            stride = chip_stride(window)
        elif stride:
            stride = pair("stride", stride, f'mode "{mode}"')
        else:
            stride = tuple(max(1, side * 2 // 3) for side in window)
        if any(s > w for s, w in zip(stride, window, strict=True)):
            raise UserError(
                f"stride={stride} is larger than window={window}, which would leave "
                "gaps: choose at most the window's size."
            )
    return dict(mode=mode, window=window, stride=stride, scales=scales, flip=bool(flip))


def pair(name: str, value: Sequence[int] | None, who: str) -> tuple[int, int]:
    """`value` as (height, width); UserError "{who} needs {name}..." if it is none."""
    value = tuple(int(v) for v in value or ())
    if len(value) != 2 or min(value) < 1:
        raise UserError(
            f"{who} needs {name}=(height, width), two positive whole numbers; it was "
            f"{value}."
        )
    return value


def probabilities(
    forward: Callable[[jax.Array], jax.Array],
    image: jax.Array,
    *,
    mode: str,
    window: tuple[int, int] | None,
    stride: tuple[int, int] | None,
    scales: tuple[float, ...],
    flip: bool,
    per_pass: int = 1,
    output_size: tuple[int, int],
) -> jax.Array:
    """Class scores of images at `output_size`; trace it inside `jax.jit`.

    Args:
      forward: normalised float32 [B, H, W, 3] -> logits [B, H, W, C].
      image: uint8 [B, H, W, 3] RGB.
      mode, window, stride, scales, flip: from `inference_options`.
      per_pass: windows per forward pass; "whole" takes all images at once.
      output_size: (height, width); bilinear with align_corners=True, of probabilities.

    Returns:
      [B, *output_size, C] float32; probabilities, or for "chips" positive sums of them.
    """
    image = normalize(image)
    if mode == "whole":
        probs = whole_probs(forward, image, scales=scales, flip=flip)
    else:
        probs = window_probs(
            forward,
            image,
            window=window,
            stride=stride,
            scales=scales,
            flip=flip,
            average=mode == "sliding",
            windows_per_pass=per_pass,
        )
    return resize_bilinear(probs, output_size, align_corners=True)
