"""Pictures of a ranking: how scores are distributed, the images at both ends."""

import io
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from uda_jax.data.dataset import Dataset
from uda_jax.data.images import read_raw_label
from uda_jax.data.resizing import resize_image
from uda_jax.files import write_atomically
from uda_jax.ranking import Part
from uda_jax.visualize import overlay, panel, png

_EASY, _HARD = "#2a78d6", "#eb6834"
_SHOWN = 6  # images of each end


def write_pictures(output: Path, part: Part, dataset: Dataset) -> None:
    """scores.png and pictures.png; see `uda_jax.ranking`."""
    write_atomically(output / "scores.png", _histogram(part))
    write_atomically(output / "pictures.png", png(_ends(output, part, dataset)))


def _histogram(part: Part) -> bytes:
    figure = Figure(figsize=(7, 3), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    edges = np.histogram_bin_edges(part.scores, bins=min(60, 2 * len(part.scores)))
    halves = [part.scores[: part.easy], part.scores[part.easy :]]
    names = [f"easy, {len(halves[0]):,}", f"hard, {len(halves[1]):,}"]
    axes.hist(halves, edges, color=[_EASY, _HARD], label=names, stacked=True)
    label = "score: mean entropy over pixels and classes"
    if (part.factors != 1).any():
        label += ", times the factor for rare classes"
    axes.set(xlabel=label, ylabel="images")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    stream = io.BytesIO()
    figure.savefig(stream, format="png")
    return stream.getvalue()


def _ends(output: Path, part: Part, dataset: Dataset) -> np.ndarray:
    """The easiest images beside the hardest, each with its pseudo-label."""
    count = len(part.rows)
    space, rows, captions = dataset.label_space, [], []
    for place in range(min(_SHOWN, -(-count // 2))):
        row, names = {}, []
        for end, at in (("easiest", place), ("hardest", count - 1 - place)):
            name = part.rows[at].name
            label = read_raw_label(output / part.rows[at].label)
            image = dataset[part.indices[at]]["image"]
            image = resize_image(image, label.shape, "area")
            row[end] = image
            row[f"{end}, pseudo-label"] = overlay(image, label, space.colors)
            names.append(f"{end}, {at + 1}: {name}, {part.scores[at]:.4f}")
        rows.append(row)
        captions.append("        ".join(names))
    return panel(rows, captions=captions, legend_of=(space.classes, space.colors))
