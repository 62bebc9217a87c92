r"""How sure networks are: a histogram of their pixels' entropy, docs/<name>.png.

    python scripts/entropy_histogram.py ebda_entropy \
        "start=runs/start_0" "DAFormer=runs/daformer_0" "EBDA v2=runs/ebda_v2_0"

Each NAME=WORKDIR is a finished run; all are of the same images, the test ones of the
first, as the evaluation sees them, one scale.  The entropy is in nats, of each pixel's
probabilities.  The mean entropy of each run goes between the markers of that name in
docs/results.md.
"""

import io
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from markers import replace_block
from matplotlib.figure import Figure

from uda_jax import runs, trained
from uda_jax.benchmarks import label_space_of, open_dataset
from uda_jax.errors import UserError
from uda_jax.evaluate import make_forward
from uda_jax.files import write_atomically
from uda_jax.labelling import look_at

DOCS = Path(__file__).parent.parent / "docs"
BINS = 40
# Runs that are alike lie on each other: dashes show both.
_LOOKS = (
    *(("#57606a", "-"), ("#2a78d6", "-"), ("#eb6834", "--")),
    *(("#1f9d63", "-"), ("#8a4fd0", "--")),
)
SMALLEST = 0.01  # %, of all pixels


def entropies(probs: jax.Array, edges: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(histogram [B, BINS], mean [B]) of the pixels' entropy; for `look_at`."""
    logs = jnp.where(probs > 0, jnp.log(jnp.maximum(probs, 1e-30)), 0)
    entropy = -jnp.sum(probs * logs, -1)
    count = jax.vmap(lambda x: jnp.histogram(x, edges)[0])(entropy)
    return count, jnp.mean(entropy, (1, 2))


def read(workdirs: dict[str, str]) -> dict[str, tuple[np.ndarray, float]]:
    """Name -> (share of the pixels in each bin, mean entropy).

    Raises:
      UserError: more runs than a picture shows, no run there, or other classes.
    """
    if len(workdirs) > len(_LOOKS):
        raise UserError(f"{len(workdirs)} runs: draw up to {len(_LOOKS)} at once.")
    found, images, space = {}, None, None
    for name, workdir in workdirs.items():
        run = trained.load_run(Path(workdir), "latest")
        if images is None:
            space = label_space_of(run.config)
            images = open_dataset(run.config.test, space)
        if label_space_of(run.config).classes != space.classes:
            raise UserError(f"{workdir} has other classes than the first run.")
        edges = jnp.linspace(0, jnp.log(space.num_classes), BINS + 1)
        edges = edges.at[-1].add(1e-3)  # rounding
        seen = look_at(
            make_forward(run.model, run.params, run.batch_stats), images,
            range(len(images)), num_classes=space.num_classes, tell=entropies,
            given=edges, size=run.config.evaluation.size, batch_size=4,
        )  # fmt: skip
        counts, means = zip(*(told for _, told in seen), strict=True)
        total = np.sum(counts, 0)
        found[name] = total / total.sum(), float(np.mean(means))
    return found


def picture(found: dict, num_classes: int) -> bytes:
    """A PNG file."""
    figure = Figure(figsize=(7, 3.6), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    edges = np.linspace(0, np.log(num_classes), BINS + 1)
    for (color, style), (name, (share, _)) in zip(_LOOKS, found.items(), strict=False):
        axes.stairs(100 * share, edges, color=color, ls=style, label=name, lw=1.8)
    axes.set_yscale("log")
    axes.set(xlabel="entropy of a pixel, nats", ylabel="pixels, %", xlim=(0, edges[-1]))
    axes.set_ylim(bottom=SMALLEST)
    axes.yaxis.set_major_formatter("{x:g}")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    stream = io.BytesIO()
    figure.savefig(stream, format="png")
    return stream.getvalue()


def main(arguments: list[str]) -> None:
    name, *rows = arguments or [""]
    if not rows or not all("=" in row for row in rows):
        sys.exit(__doc__)
    workdirs = dict(row.split("=", 1) for row in rows)
    try:
        found = read(workdirs)
    except UserError as error:
        sys.exit(f"uda_jax: {error}")
    num_classes = label_space_of(
        runs.read_config(Path(next(iter(workdirs.values()))))
    ).num_classes
    write_atomically(DOCS / f"{name}.png", picture(found, num_classes))
    lines = ["| run | mean entropy, nats |", "|---|---|"]
    lines += [f"| {name} | {mean:.3f} |" for name, (_, mean) in found.items()]
    replace_block(DOCS / "results.md", name, "\n".join(lines))


if __name__ == "__main__":
    main(sys.argv[1:])
