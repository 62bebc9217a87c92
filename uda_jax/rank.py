r"""Pseudo-labels of a run's target images, ranked by how sure the network is of them.

    python -m uda_jax.rank --workdir runs/advent --output runs/advent/rank

writes pseudo-labels, scores.csv and the manifests of the easy and the hard images; see
`uda_jax.ranking`.  Repeating the command goes on where it was stopped.  Labels of the
target are never opened.  With weights of a file instead of a run's:

    python -m uda_jax.rank --config configs/advent.py --output ranks/advent \
        --config.init_from=FILE.pth --config.init_new_heads=False
"""

import argparse
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from uda_jax import parallel, ranking, runs, stages, trained
from uda_jax.acquisition import easy_count, rare_factor
from uda_jax.benchmarks import draw_minicity, label_space_of, open_dataset
from uda_jax.config_files import load_config, parse_beside_config
from uda_jax.data.fingerprint import fingerprint
from uda_jax.errors import UserError
from uda_jax.evaluate import make_forward
from uda_jax.label_files import label_images, read_progress, surest_of_classes
from uda_jax.predict import without_labels
from uda_jax.program import CHECKPOINTS
from uda_jax.ranking_pictures import write_pictures


class Network(NamedTuple):
    """A network to rank with, and where it is from.

    Attributes:
      config: its target is ranked, as its evaluation says.
      forward: of `make_forward`.
      name, step: the run or file, and the steps that it was trained.
      arguments: of the command that trained it.
      checkpoint: which of a run's.
    """

    config: ConfigDict
    forward: jax.tree_util.Partial
    name: str
    step: int
    arguments: tuple[str, ...] = ()
    checkpoint: str = ""


def rank(
    network: Network,
    output: Path,
    *,
    normalize: bool = False,
    easy_fraction: float = 0.67,
    confidence: float = 0.0,
    class_share: float | None = None,
) -> ranking.Part:
    """Scores, labels, ranks and divides the target images of a config.

    Each process looks at its share of the images, with its own devices; all write into
    one folder, which hosts must have in common.

    Args:
      network: of `load_network`; its config's evaluation says how it looks.
      output: folder, see `uda_jax.ranking`.
      normalize: multiply the entropy by `acquisition.rare_factor`.
      easy_fraction: share of the images that are easy, in (0, 1].
      confidence: a pixel gets a pseudo-label if its probability is above it.
      class_share: of each class only this share of its pixels, the surest, keep their
        label in the manifests; see `label_files.surest_of_classes`.

    Returns:
      The images in their order, and the division.

    Raises:
      UserError: no target images, an output of another ranking, options out of range,
        an image that cannot be read, a network whose probabilities are not finite.
    """
    config, space = network.config, label_space_of(network.config)
    if not config.target.reader:
        raise UserError(
            "target.reader is empty, so there are no images to rank: name the network "
            "with --config FILE --config.init_from=RUN, of a config with a target."
        )
    if not 0 <= confidence < 1:
        raise UserError(
            f"--confidence={confidence} is outside [0, 1): give the probability above "
            "which a pixel gets a label, 0 for all pixels."
        )
    if class_share is not None and not 0 < class_share <= 1:
        raise UserError(
            f"--class_share={class_share} is outside (0, 1]: give the share of each "
            "class's pixels, the surest ones, that keep their label."
        )
    draw_minicity(config.benchmark, config.test)
    images = open_dataset(config.target, space, labels=False)
    paths, labels = ranking.image_paths(images), ranking.label_paths(images)
    easy_count(len(images), easy_fraction)
    if normalize:
        rare_factor(np.zeros((0, space.num_classes), bool), space.classes)
    options = {
        "weights": digest(network.forward),
        "label_space": space.name,
        "classes": space.classes,
        "evaluation": without_labels(config.evaluation),
        "confidence": confidence,
        "certainty": class_share is not None,
    }
    del options["evaluation"]["batch_size"]  # it changes no number
    division = {
        "normalize": normalize,
        "easy_fraction": easy_fraction,
        "class_share": class_share,
    }
    text = json.dumps([options, images.names, division])
    parallel.check_equal(text, "would rank otherwise")
    facts = {
        "network": network.name,
        "step": network.step,
        "checkpoint": network.checkpoint,
        "commit": runs.provenance()["commit"],
        **options,
        # Where the images lie is no part of it; what they are, the fingerprint says.
        "target": {k: v for k, v in config.target.items() if k != "root"},
        "fingerprint": fingerprint(images),
    }
    with parallel.mistakes_shared():
        images[0]  # a file that cannot be read shows before anything is written
        if parallel.is_main():
            ranking.open_folder(output, facts)
    done = read_progress(output)
    todo = [i for i, name in enumerate(images.names) if name not in done]
    if done and parallel.is_main():
        print(f"{len(done):,} of {len(images):,} images are done", flush=True)
    parallel.check_equal(str(todo), "have not one --output with the same files")
    with parallel.mistakes_shared():
        label_images(
            network.forward, images, labels, todo, output,
            confidence=confidence, certainty=options["certainty"],
            **without_labels(config.evaluation),
        )  # fmt: skip
    with parallel.mistakes_shared():
        part = ranking.divide(
            images, read_progress(output),
            normalize=normalize, easy_fraction=easy_fraction,
        )  # fmt: skip
        if parallel.is_main():
            about = {**facts, **division}
            if class_share is not None:
                rows = surest_of_classes(output, part.rows, class_share, space)
                part = part._replace(rows=rows)
            write_pictures(output, part, images)
            ranking.write_lists(output, part, paths, about)
    return part


def digest(forward: jax.tree_util.Partial) -> str:
    """First 16 hex digits of the SHA-256 of a network's weights."""
    found = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(forward):
        found.update(jax.tree_util.keystr(path).encode())
        found.update(np.ascontiguousarray(leaf).tobytes())
    return found.hexdigest()[:16]


def load_network(workdir: str, checkpoint: str) -> Network:
    """The network of a run, to rank its own target.

    Raises:
      UserError: no run or checkpoint there.
    """
    run = trained.load_run(workdir, checkpoint)
    forward = make_forward(run.model, run.params, run.batch_stats)
    command = runs.first_command(Path(workdir))
    return Network(run.config, forward, str(workdir), run.step, command, checkpoint)


def load_start(config: ConfigDict) -> Network:
    """The network in `config.init_from`, to rank the config's target.

    Raises:
      UserError: the config names none, or one that does not fit its model.
    """
    if not config.init_from or config.init_new_heads:
        raise UserError(
            "--config needs trained weights to rank with: give "
            "--config.init_from=FILE --config.init_new_heads=False, or a run's "
            "--workdir instead."
        )
    runs.check_config(config)
    model = runs.make_model(config)
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    params, batch_stats, _ = runs.load_weights(
        config.init_from, *shapes, row=config.model, label_space=label_space_of(config)
    )
    forward = make_forward(model, params, batch_stats)
    return Network(config, forward, config.init_from, 0)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m uda_jax.rank",
        description="Labels the target images with a network and ranks them by how "
        "sure it is of them (IntraDA).",
    )
    network = parser.add_mutually_exclusive_group(required=True)
    network.add_argument("--workdir", help="folder of a run")
    network.add_argument(
        "--config",
        help="config file, with --config.init_from=FILE --config.init_new_heads=False",
    )
    parser.add_argument("--output", required=True, help="folder for the results")
    parser.add_argument(
        "--checkpoint", choices=CHECKPOINTS, help="of --workdir (latest)"
    )
    parser.add_argument(
        "--normalize", action="store_true", help="images with rare classes are easier"
    )
    parser.add_argument(
        "--easy_fraction", type=float, default=0.67, help="share of easy images (0.67)"
    )
    parser.add_argument(
        "--confidence", type=float, default=0.0,
        help="probability above which a pixel gets a label (0: all pixels)",
    )  # fmt: skip
    parser.add_argument(
        "--class_share", type=float,
        help="of each class only this share of its pixels, the surest, get a label",
    )  # fmt: skip
    parser.add_argument(
        "--flip", action="store_true", help="look at the mirror image too"
    )
    parser.add_argument("--scales", help="look at these sizes, such as 1,1.25")
    parser.add_argument("--coordinator", help="HOST:PORT of process 0, or auto")
    parser.add_argument("--num_processes", type=int, help="of a multi-host run")
    parser.add_argument("--process_id", type=int, help="of this process, from 0")
    parser.add_argument(
        "--debug", action="store_true", help="show tracebacks of mistakes"
    )
    arguments, overrides = parse_beside_config(parser, argv)
    if arguments.config and arguments.checkpoint:
        raise UserError("--checkpoint is of a --workdir: leave it out with --config.")
    parallel.start_processes(
        arguments.coordinator, arguments.num_processes, arguments.process_id
    )
    if arguments.config:
        chosen = load_start(load_config(arguments.config, overrides))
    else:
        chosen = load_network(arguments.workdir, arguments.checkpoint or "latest")
    look = chosen.config.evaluation
    if arguments.flip:
        look.flip = True
    if arguments.scales:
        look.scales = _numbers(arguments.scales)
    output = Path(arguments.output)
    part = rank(
        chosen,
        output,
        normalize=arguments.normalize,
        easy_fraction=arguments.easy_fraction,
        confidence=arguments.confidence,
        class_share=arguments.class_share,
    )
    if not parallel.is_main():
        return
    print(
        f"{len(part.rows):,} images ranked: {part.easy:,} easy, "
        f"{len(part.rows) - part.easy:,} hard; see {output}/pictures.png"
    )
    for command in stages.commands_after_ranking(
        chosen.config, output, chosen.arguments
    ):
        print(f"next:   {command}")


def _numbers(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise UserError(
            f"--scales={text} is not a list of numbers: write --scales=1,1.25."
        ) from None


def run() -> None:
    """The command `uda-jax-rank`."""
    from uda_jax import program

    program.run(main)


if __name__ == "__main__":
    run()
