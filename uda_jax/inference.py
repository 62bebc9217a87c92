"""How a network looks at an image: one pass or windows, scales, the mirror image."""

import hashlib
from collections.abc import Callable, Mapping, Sequence, Set
from functools import partial
from typing import Any

import jax

from uda_jax.augment import normalize
from uda_jax.errors import UserError, did_you_mean
from uda_jax.models.layers import resize_bilinear
from uda_jax.sliding import chip_stride, whole_probs, window_logits, window_probs

Size = tuple[int, int]  # (height, width)

MODES = ("whole", "chips", "sliding")
RESIZES = ("probabilities", "logits", "direct")
RESIZES_OF = {
    "whole": RESIZES,
    "chips": RESIZES[:1],
    "sliding": RESIZES[:2],
}
_NAMED_SIZES = 3


def inference_options(
    mode: str = "whole",
    window: Sequence[int] | None = None,
    stride: Sequence[int] | None = None,
    scales: Sequence[float] = (1.0,),
    flip: bool = False,
    resize: str = "probabilities",
    align_corners: bool = True,
) -> dict[str, Any]:
    """Checks how to look at an image and completes what follows from the rest.

    Args:
      mode: "whole": one pass over the image.  "chips": TUFL's evaluation, zero-padded
        windows 5/6 apart whose probabilities are summed as released (Yan et al., T-ITS
        2023; window 647 for CrossCity, 1024 for Cityscapes).  "sliding": windows whose
        probabilities, or with resize="logits" logits, are averaged where they overlap.
      window: (height, width) of a window; not for "whole".
      stride: (down, right) between windows of "sliding"; default 2/3 of the window.
      scales: factors of the sides, as in multi-scale testing.
      flip: also look at the mirror image.
      resize: what is brought to the label's size.  "probabilities": their mean over the
        passes (TUFL).  "logits": those at the network's input size, pass by pass before
        the softmax (mmseg's evaluation: DAFormer, with align_corners=False).  "direct":
        the network's own logits, in one interpolation from its coarse grid and in the
        network's own way (ADVENT, AdaptSegNet, IntraDA), also pass by pass.  "chips"
        have the first, "sliding" the first two: "logits" is mmseg's sliding.
      align_corners: of that resize; "direct" has none of its own.

    Returns:
      The static keyword arguments of `probabilities`.

    Raises:
      UserError: an unknown mode, or numbers that do not fit it.
    """
    for name, value, allowed in (("mode", mode, MODES), ("resize", resize, RESIZES)):
        if value not in allowed:
            raise UserError(
                f'{name} "{value}" is unknown{did_you_mean(value, allowed)}: choose '
                f"one of {', '.join(allowed)}."
            )
    if resize not in RESIZES_OF[mode]:
        raise UserError(
            f'mode "{mode}" has no resize="{resize}": choose '
            f'{" or ".join(RESIZES_OF[mode])}, or the mode "whole".'
        )
    if resize == "direct" and not align_corners:
        raise UserError(
            'resize="direct" is the network\'s own and takes no align_corners=False: '
            'leave it out, or choose resize="logits".'
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
    return {
        "mode": mode,
        "window": window,
        "stride": stride,
        "scales": scales,
        "flip": bool(flip),
        "resize": resize,
        "align_corners": bool(align_corners),
    }


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
    resize: str,
    align_corners: bool,
    per_pass: int = 1,
    output_size: tuple[int, int],
) -> jax.Array:
    """Class scores of images at `output_size`; trace it inside `jax.jit`.

    Args:
      forward: normalised float32 [B, H, W, 3] -> logits [B, H, W, C]; for "direct" it
        takes `size`, (height, width) of its logits.
      image: uint8 [B, H, W, 3] RGB.
      mode, window, stride, scales, flip, resize, align_corners: from
        `inference_options`.
      per_pass: windows per forward pass; "whole" takes all images at once.
      output_size: (height, width).

    Returns:
      [B, *output_size, C] float32; probabilities, or for "chips" positive sums of them.
    """
    image = normalize(image)
    grow = partial(resize_bilinear, size=output_size, align_corners=align_corners)
    windows = dict(window=window, stride=stride, windows_per_pass=per_pass)
    if mode == "whole" or resize == "logits":
        logits = forward
        if mode == "sliding":
            logits = partial(window_logits, forward, **windows)
        look = {
            "probabilities": forward,
            "logits": lambda x: grow(logits(x)),
            "direct": partial(forward, size=output_size),
        }[resize]
        size = image.shape[1:3] if resize == "probabilities" else output_size
        probs = whole_probs(look, image, scales=scales, flip=flip, size=size)
    else:
        probs = window_probs(
            forward,
            image,
            scales=scales,
            flip=flip,
            average=mode == "sliding",
            **windows,
        )
    return grow(probs)


def protocol(
    options: Mapping[str, Any],
    sizes: Set[tuple[Size, Size, Size]],
    filter: str = "",
    label_filter: str = "",
) -> str:
    """How scores were obtained, in one phrase, to compare like with like.

    Such as "image 512 x 1024 by opencv_bilinear, logits resized (align_corners=False)
    to the label (1024 x 2048), no flip".

    Args:
      options: from `inference_options`.
      sizes: (height, width) of every image as the network saw it, of its label as it
        was counted, and of the label in its file.
      filter: how images were resized on the host, empty where they were not.
      label_filter: how labels were.
    """
    images, labels, _ = (_sizes(set(kind)) for kind in zip(*sizes, strict=True))
    by = f" by {filter}" if filter else ""
    if all(image == label for image, label, _ in sizes):
        parts = [f"image and label {labels}{by}"]
    else:
        what = options["resize"].replace("direct", "the network's coarse logits")
        how = "" if options["align_corners"] else " (align_corners=False)"
        parts = [f"image {images}{by}", f"{what} resized{how} to the label ({labels})"]
    if any(label != file for _, label, file in sizes):
        # Images and labels have one filter, which is named once.
        by = f" by {label_filter}" if label_filter and not filter else ""
        parts.append(f"labels resized{by} (not comparable with full-size ones)")
    if options["mode"] != "whole":
        window, stride = (_by(options[key]) for key in ("window", "stride"))
        joined = "summed" if options["mode"] == "chips" else "averaged"
        if options["resize"] == "logits":
            joined = f"logits {joined}"
        parts.append(f"windows {window} every {stride}, {joined}")
    if options["scales"] != (1.0,):
        parts.append(f"scales {' '.join(f'{s:g}' for s in options['scales'])}")
    parts.append("with the mirror image" if options["flip"] else "no flip")
    return ", ".join(parts)


def _sizes(sizes: Set[Size]) -> str:
    """All of them by name, or their number, range and a code that tells them apart."""
    ordered = sorted(sizes)
    if len(ordered) <= _NAMED_SIZES:
        return " or ".join(map(_by, ordered))
    ranges = (f"{min(side)}-{max(side)}" for side in zip(*ordered, strict=True))
    code = hashlib.sha256(repr(ordered).encode()).hexdigest()[:6]
    return f"of {len(ordered)} sizes, {' x '.join(ranges)} (set {code})"


def _by(size: Size) -> str:
    return f"{size[0]} x {size[1]}"
