"""Panels: what a method sees in a batch, drawn for people."""

from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from PIL import Image

from uda_jax.labels import LabelSpace
from uda_jax.methods.method import Method
from uda_jax.parallel import is_main
from uda_jax.visualize import colorize, heat, keep, panel, stack

_PANEL_IMAGES = 2
# jit returns dictionaries in alphabetical order; people read from what is mixed to what
# comes out.  Names that are not here come last.
_MIXED = (
    *("mixed_template", "mixed_source", "mixed_mask"),
    *("mixed_on_source", "mixed", "mixed_pseudo_label", "mixed_label", "mixed_weight"),
)


def make_panels(method: Method, label_space: LabelSpace, mesh: Mesh) -> Callable:
    """A function that draws what the method sees in a batch, and its writer."""

    def first(state, batch, key):
        images = method.loss(state.params, state, batch, key)[1].images
        return jax.tree.map(lambda x: x[:_PANEL_IMAGES], images)

    # On every device, because a process can only read what is on its own.
    images = jax.jit(first, out_shardings=NamedSharding(mesh, PartitionSpec()))

    def look(state, batch, path: Path, writer, step: int) -> None:
        key = jax.random.fold_in(state.key, state.step - 1)
        seen = jax.device_get(images(state, batch, key))
        if not is_main() or not seen:
            return
        picture = panel_picture(seen, label_space, f"step {step}")
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(path)
        writer.write_images(step, {"panel": picture[None]})

    return look


def panel_picture(images: dict, label_space: LabelSpace, title: str) -> np.ndarray:
    """One captioned picture of `Output.images`; the form follows from the dtype.

    What is named 'mixed...' has lines of its own below the others.  The legend names
    the classes, and "ignored" where such pixels are shown.

    Args:
      images: name -> [B, H, W, 3] float in [0, 1] (a photograph), [B, H, W] integer
        (train ids), [B, H, W] float from 0 on (a heat map from 0 to 1, or to the
        largest value shown if that is above 1; its caption says which) or [B, H, W]
        bool (a mask, shown over 'source' or 'mixed' if its name begins so, else over
        'target').
      label_space: names and colours of the classes.
      title: a line above everything.

    Returns:
      [H, W, 3] uint8.
    """
    count = min(_PANEL_IMAGES, min(len(v) for v in images.values()))
    shown = {name: np.asarray(values[:count]) for name, values in images.items()}

    def column(name: str) -> tuple[str, list[np.ndarray]]:
        """Its caption and its pictures."""
        values, caption = shown[name], name.replace("_", " ")
        if values.dtype == bool:
            photos = shown[_photo_of(name)]
            return caption, [
                keep(_bytes(photo), mask)
                for photo, mask in zip(photos, values, strict=True)
            ]
        if values.ndim == 4:
            return caption, list(_bytes(values))
        if _is_label(values):
            return caption, list(colorize(values, label_space.colors))
        # One scale for all rows, whose end is the number in the caption.
        top = np.ceil(10 * np.nanmax(values, initial=1)) / 10
        return f"{caption} (0 to {top:g})", list(heat(values / top))

    def lines(names: list[str], **options) -> np.ndarray:
        columns = dict(map(column, names))
        rows = [{k: v[row] for k, v in columns.items()} for row in range(count)]
        return panel(rows, cell_width=256, **options)

    order = sorted(shown, key=_place)
    own = [name for name in order if not _is_mixed(name)]
    mixed = [name for name in order if _is_mixed(name)]
    legend_of = _legend(label_space, shown.values())
    if not mixed:
        return lines(own, title=title, legend_of=legend_of)
    return stack([lines(own, title=title), lines(mixed, legend_of=legend_of)])


def _place(name: str) -> tuple:
    """Where a column stands: source, target, the others; mixed ones by their list."""
    among = _MIXED.index(name) if name in _MIXED else len(_MIXED)
    return name[:6] != "source", name[:6] != "target", among, name


def _legend(space: LabelSpace, shown) -> tuple[list[str], np.ndarray]:
    """Names and colours, with "ignored" where a label holds an id without a colour."""
    names, colors = list(space.classes), np.asarray(space.colors)
    if any(_is_label(v) and (v >= len(colors)).any() for v in shown):
        names.append("ignored")
        colors = np.concatenate([colors, np.zeros((1, 3), colors.dtype)])
    return names, colors


def _photo_of(mask: str) -> str:
    """The photograph that a mask lies over."""
    if _is_mixed(mask):
        return "mixed"
    return "source" if mask.startswith("source") else "target"


def _is_label(values: np.ndarray) -> bool:
    return values.ndim == 3 and np.issubdtype(values.dtype, np.integer)


def _is_mixed(name: str) -> bool:
    return name.startswith("mixed")


def _bytes(photo: np.ndarray) -> np.ndarray:
    return np.rint(np.clip(photo, 0, 1) * 255).astype(np.uint8)
