r"""Predictions for photographs: class ids, colours and overlays at their own size.

    python -m uda_jax.predict --workdir runs/tufl_rio --input photo.jpg --output out/
    python -m uda_jax.predict --weights net.safetensors --input photo.jpg --output out

or, in Python:

    predictor = uda_jax.predict.Predictor.from_workdir("runs/tufl_rio")
    result = predictor("photo.jpg")  # result.ids: uint8 [H, W]
    result.save("out/")
"""

import argparse
import dataclasses
import functools
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.progress import track

from uda_jax.data.resizing import resize_image
from uda_jax.errors import UserError
from uda_jax.evaluate import make_forward
from uda_jax.files import write_atomically
from uda_jax.inference import RESIZES_OF, inference_options, pair, probabilities
from uda_jax.labels import LabelSpace, get_label_space
from uda_jax.photos import find_photos, read_photo
from uda_jax.program import CHECKPOINTS
from uda_jax.visualize import colorize, heat, overlay, png


@dataclasses.dataclass(frozen=True, eq=False)
class Result:
    """What the network sees in one photograph, at the photograph's size.

    Attributes:
      name: the file's name without its ending.
      image: uint8 [H, W, 3] RGB.
      ids: uint8 [H, W] train ids.
      confidence: float32 [H, W], share of the winning class, in [0, 1].
      label_space: names and colours of the classes.
    """

    name: str
    image: np.ndarray
    ids: np.ndarray
    confidence: np.ndarray
    label_space: LabelSpace

    @property
    def colors(self) -> np.ndarray:
        """uint8 [H, W, 3]: every class in its colour."""
        return colorize(self.ids, self.label_space.colors)

    @property
    def overlay(self) -> np.ndarray:
        """uint8 [H, W, 3]: the photograph tinted with the classes."""
        return overlay(self.image, self.ids, self.label_space.colors)

    @property
    def heat(self) -> np.ndarray:
        """uint8 [H, W, 3]: the confidence, dark is unsure."""
        return heat(self.confidence)

    def save(self, folder: str | os.PathLike) -> list[Path]:
        """Writes <name>_ids.png, <name>_color.png and <name>_overlay.png.

        Each file is written whole or not at all; <name>_ids.png holds the train ids as
        8-bit grey levels.

        Returns:
          The three paths.
        """
        pictures = {"ids": self.ids, "color": self.colors, "overlay": self.overlay}
        return [
            write_atomically(Path(folder) / f"{self.name}_{kind}.png", png(picture))
            for kind, picture in pictures.items()
        ]


class Predictor:
    """A segmentation network behind one call: a photograph in, a `Result` out."""

    def __init__(
        self,
        forward: Callable[[jax.Array], jax.Array],
        label_space: LabelSpace,
        *,
        mode: str = "whole",
        window: Sequence[int] | None = None,
        stride: Sequence[int] | None = None,
        scales: Sequence[float] = (1.0,),
        flip: bool = False,
        size: Sequence[int] | None = None,
        filter: str = "area",
        resize: str = "probabilities",
        align_corners: bool = True,
        batch_size: int = 1,
    ):
        """Takes any forward function; `from_workdir` takes a run of this library.

        Args:
          forward: normalised float32 [B, H, W, 3] -> logits [B, H, W, C]; with
            resize="direct" it takes their `size`, as those of `make_forward` do.
          label_space: what the C classes are.
          mode, window, stride, scales, flip, resize, align_corners: see
            `inference.inference_options`; here the photograph has the label's part.
          size: (height, width) that the network sees; the photograph's by default.
            Results always have the photograph's own size.
          filter: how it is resized to that; key of `uda_jax.data.resizing.FILTERS`.
          batch_size: windows per forward pass, in the modes that have windows.
        """
        self.label_space = label_space
        self._size = pair("size", size, "prediction") if size else None
        self._filter = filter
        if not isinstance(forward, jax.tree_util.Partial):
            forward = jax.tree_util.Partial(forward)
        self._forward = forward
        options = inference_options(
            mode, window, stride, scales, flip, resize, align_corners
        )
        options["per_pass"] = batch_size

        @functools.partial(jax.jit, static_argnames="output_size")
        def look(forward, image, output_size):
            scores = probabilities(forward, image, output_size=output_size, **options)
            if scores.shape[-1] != label_space.num_classes:
                raise UserError(
                    f"the network has {scores.shape[-1]} classes and the label space "
                    f'"{label_space.name}" {label_space.num_classes}: give the label '
                    "space that it was trained in."
                )
            ids = jnp.argmax(scores[0], -1).astype(jnp.uint8)
            return ids, scores[0].max(-1) / scores[0].sum(-1)

        self._look = look

    @classmethod
    def from_workdir(
        cls,
        workdir: str | os.PathLike,
        checkpoint: str = "latest",
        **options,
    ) -> "Predictor":
        """Loads a run; it looks at images as the run's own evaluation does.

        Args:
          workdir: folder of a run.
          checkpoint: "latest", "best", or "teacher": its mean teacher.
          **options: replace those of the run's evaluation; see `Predictor`.

        Raises:
          UserError: no run or checkpoint there.
        """
        from uda_jax.trained import load_run

        run = load_run(workdir, checkpoint)
        forward = make_forward(run.model, run.params, run.batch_stats)
        return cls._of_run(run, forward, options)

    @classmethod
    def from_workdirs(
        cls,
        workdirs: Sequence[str | os.PathLike],
        weights: Sequence[float] = (),
        checkpoint: str = "latest",
        **options,
    ) -> "Predictor":
        """Loads several runs, whose weighted logits are added: an ensemble.

        Args:
          workdirs: folders of runs with one label space and one evaluation.
          weights: one for each, which sum to 1; equal ones by default.
          checkpoint, **options: as in `from_workdir`.

        Raises:
          UserError: see `uda_jax.ensemble.load_members`.
        """
        from uda_jax.ensemble import load_members, sum_of_logits

        members = load_members(workdirs, weights, checkpoint)
        return cls._of_run(members[0].run, sum_of_logits(members), options)

    @classmethod
    def _of_run(cls, run, forward, options):
        evaluation = without_labels(run.config.evaluation)
        mode = options.get("mode", evaluation["mode"])
        if mode != evaluation["mode"]:
            # Another mode brings windows of its own, and may not have this resize.
            dropped = ["window", "stride"]
            if evaluation["resize"] not in RESIZES_OF.get(mode, ()):
                dropped += ["resize", "align_corners"]
            for key in dropped:
                del evaluation[key]
        return cls(forward, run.label_space, **(evaluation | options))

    @classmethod
    def from_file(
        cls, path: str | os.PathLike, label_space: str = "", **options
    ) -> "Predictor":
        """Loads a converted file.

        Args:
          path: .safetensors of `python -m uda_jax.convert`.
          label_space: key of LABEL_SPACES, what the classes are; needed where the file
            does not say it.
          **options: see `Predictor`.

        Raises:
          UserError: it is no converted file; or nobody said what the classes are.
        """
        if Path(path).suffix != ".safetensors":
            raise UserError(
                f"{path} is no converted file: convert it first by python -m "
                "uda_jax.convert IN OUT.safetensors."
            )
        from uda_jax.loaded_model import load_model

        loaded = load_model(path)
        space = get_label_space(label_space) if label_space else loaded.label_space
        if space is None:
            raise UserError(
                f"{path} does not say what its {loaded.num_classes} classes are: give "
                "--label_space, such as cityscapes19."
            )
        forward = make_forward(loaded.model, loaded.params, loaded.batch_stats)
        return cls(forward, space, **options)

    def __call__(self, photo: str | os.PathLike | np.ndarray) -> Result:
        """Segments one photograph.

        Args:
          photo: path of an image file, or uint8 [H, W, 3] RGB.

        Raises:
          UserError: the file is missing or is no image.
        """
        if isinstance(photo, np.ndarray):
            name, image = "image", photo
            if image.dtype != np.uint8 or image.ndim != 3 or image.shape[-1] != 3:
                raise UserError(
                    "an image given as an array must be uint8 [H, W, 3] RGB; this is "
                    f"{image.dtype} {list(image.shape)}."
                )
        else:
            name, image = Path(photo).stem, read_photo(photo)
        seen = image
        if self._size is not None:
            seen = resize_image(image, self._size, self._filter)
        ids, confidence = self._look(
            self._forward, seen[None], output_size=image.shape[:2]
        )
        return Result(
            name, image, np.asarray(ids), np.asarray(confidence), self.label_space
        )


def without_labels(evaluation: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a config's evaluation that a Predictor has."""
    return {k: v for k, v in evaluation.items() if k != "label_size"}


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m uda_jax.predict",
        description="Segments photographs with a trained network: class ids, "
        "colours and an overlay for each, at its own size.",
    )
    network = parser.add_mutually_exclusive_group(required=True)
    network.add_argument("--workdir", help="folder of a run")
    network.add_argument("--weights", help="converted file (.safetensors)")
    parser.add_argument("--input", required=True, help="a photograph or a folder")
    parser.add_argument("--output", required=True, help="folder for the results")
    parser.add_argument(
        "--checkpoint",
        choices=CHECKPOINTS,
        help="which weights of --workdir (default: latest)",
    )
    parser.add_argument(
        "--label_space", default="", help="classes of --weights, if it does not say"
    )
    parser.add_argument(
        "--debug", action="store_true", help="show tracebacks of mistakes"
    )
    arguments = parser.parse_args(argv)
    if arguments.weights and arguments.checkpoint:
        raise UserError("--checkpoint is of a --workdir: leave it out with --weights.")
    if arguments.workdir and arguments.label_space:
        raise UserError("--label_space is of --weights: a --workdir says its own.")
    # What can be wrong with the input is said before the network is loaded.
    photos = find_photos(arguments.input)
    output = Path(arguments.output)
    if output.exists() and not output.is_dir():
        raise UserError(f"--output {output} is a file: give a folder.")
    read_photo(photos[0])
    if arguments.weights:
        predictor = Predictor.from_file(arguments.weights, arguments.label_space)
    else:
        predictor = Predictor.from_workdir(
            arguments.workdir, arguments.checkpoint or "latest"
        )
    console = Console(stderr=True)
    for photo in track(photos, "segmenting", console=console, transient=True):
        predictor(photo).save(output)
    plural = "image" if len(photos) == 1 else "images"
    print(f"{len(photos)} {plural} segmented; see {output}/*_overlay.png")


def run() -> None:
    """The command `uda-jax-predict`."""
    from uda_jax import program

    program.run(main)


if __name__ == "__main__":
    run()
