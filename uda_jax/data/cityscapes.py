"""Cityscapes (Cordts et al., CVPR 2016) and its copies in fog and rain."""

from collections.abc import Sequence
from pathlib import Path

from uda_jax.data.dataset import Dataset
from uda_jax.data.list_files import listed
from uda_jax.data.listing import (
    Example,
    LabelKind,
    check_some_of,
    choose_folder,
    images_in,
    open_examples,
)
from uda_jax.errors import UserError
from uda_jax.labels import LabelSpace

_LABELS = {
    "label_ids": LabelKind("_gtFine_labelIds.png", "cityscapes"),
    "train_ids": LabelKind("_gtFine_labelTrainIds.png", "cityscapes_train_ids"),
}
_WEATHER = ("foggy", "rain")


def cityscapes(
    root: str | Path,
    *,
    label_space: str | LabelSpace,
    split: str = "train",
    fraction: float = 1.0,
    label_files: str = "label_ids",
    list_file: str = "",
    labels: bool = True,
) -> Dataset:
    """Cityscapes: leftImg8bit/<split>/<town>/ and gtFine/<split>/<town>/.

    A split train_<name> is a copy of train in another style, as TUFL makes them; its
    labels are those of gtFine/train.

    Args:
      root: folder that contains leftImg8bit and gtFine.
      label_space: one that shares classes with Cityscapes.
      split: folder below leftImg8bit: "train", "val" or "test"; "train_extra", whose
        labels are coarse, only without labels.
      fraction: in (0, 1]; keeps every int(1 / fraction)-th image, as TUFL does.
      label_files: "label_ids" reads *_gtFine_labelIds.png, as they are published;
        "train_ids" *_gtFine_labelTrainIds.png, as cityscapesScripts makes them.
      list_file: chooses and orders the images, see `uda_jax.data.list_files`.
      labels: whether to read labels.

    Raises:
      UserError: a folder or a label is missing, there are no images, the list names one
        that is not there, or labels of "train_extra" are asked for.
    """
    root = Path(root)
    if split == "train_extra" and labels:
        raise UserError(
            'split="train_extra" of Cityscapes has coarse labels only (gtCoarse), '
            'which are not read: choose split="train", or labels=False for its images '
            "alone."
        )
    if not 0 < fraction <= 1:
        raise UserError(
            f"fraction={fraction} of the Cityscapes images is not in (0, 1]: "
            "give 1.0 for all images."
        )
    ending = "_leftImg8bit.png"
    folder = choose_folder(root / "leftImg8bit", "split", split)
    where = folder / f"<town>/*{ending}"
    label_folder = root / "gtFine" / ("train" if split.startswith("train_") else split)
    examples = []
    for image in images_in(folder, ending, recursive=True):
        name = image.name.removesuffix(ending)
        examples.append(Example(name, image, label_folder / image.parent.name / name))
    return open_examples(
        listed(examples, list_file, where)[:: int(1 / fraction)],
        where,
        _LABELS,
        label_files,
        label_space=label_space,
        labels=labels,
    )


def cityscapes_weather(
    root: str | Path,
    *,
    label_space: str | LabelSpace,
    split: str = "train",
    weather: tuple[str, ...] = _WEATHER,
    betas: tuple[float, ...] = (),
    label_files: str = "label_ids",
    list_file: str = "",
    labels: bool = True,
) -> Dataset:
    """Foggy Cityscapes and Rain Cityscapes, one after the other.

        leftImg8bit_foggy/<split>/<town>/<frame>_leftImg8bit_foggy_beta_<beta>.png
        leftImg8bit_rain/<split>/<town>/<frame>_leftImg8bit_rain_<parameters>.png

    Fog: Sakaridis et al., IJCV 2018; rain: Hu et al., CVPR 2019.  Labels are those of
    the clear frames in gtFine/<split>/<town>/.  VBLC and EBDA adapt to both together.
    A frame is there several times: the names are <frame>_foggy_beta_<beta> and
    <frame>_rain_<parameters>.

    Args:
      root: folder that contains leftImg8bit_foggy, leftImg8bit_rain and gtFine.
      label_space, label_files, list_file, labels: as in `cityscapes`.
      split: "train" or "val".
      weather: "foggy", "rain" or both, in the order of the dataset.
      betas: densities of the fog to keep, of 0.005, 0.01 and 0.02; () for all.

    Raises:
      UserError: as in `cityscapes`; or no fog has one of the betas.
    """
    root = Path(root)
    check_some_of("weather", weather, _WEATHER)
    if not weather or (betas and "foggy" not in weather):
        raise UserError(
            f"weather={weather} with betas={betas} leaves nothing to read: give "
            'weather ("foggy",), ("rain",) or ("foggy", "rain"), and betas only with '
            "fog."
        )
    examples: list[Example] = []
    for kind in weather:
        folder = choose_folder(root / f"leftImg8bit_{kind}", "split", split)
        images = images_in(folder, ".png", recursive=True)
        if kind == "foggy" and betas:
            images = _with_betas(images, betas, folder)
        for image in images:
            frame, _, rest = image.stem.partition(f"_leftImg8bit_{kind}_")
            if not rest:
                raise UserError(
                    f"image {image} is not named <frame>_leftImg8bit_{kind}_*.png: "
                    "restore its name or move it elsewhere."
                )
            label = root / "gtFine" / split / image.parent.name / frame
            examples.append(Example(f"{frame}_{kind}_{rest}", image, label))
    where = root / f"leftImg8bit_{'|'.join(weather)}" / split
    return open_examples(
        listed(examples, list_file, where),
        where,
        _LABELS,
        label_files,
        label_space=label_space,
        labels=labels,
    )


def _with_betas(
    images: Sequence[Path], betas: tuple[float, ...], folder: Path
) -> list[Path]:
    ends = tuple(f"_beta_{beta}" for beta in betas)
    present = sorted({image.stem.rpartition("_beta_")[2] for image in images})
    for beta, end in zip(betas, ends, strict=True):
        if not any(image.stem.endswith(end) for image in images):
            raise UserError(
                f"no image in {folder} has fog of density beta={beta}: choose betas "
                f"of {', '.join(present) or 'none'}."
            )
    return [image for image in images if image.stem.endswith(ends)]
