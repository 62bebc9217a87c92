"""Small trees of every published data set, in its original folders and file formats."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import cv2
import numpy as np
import scipy.io
from conftest import draw, write_cityscapes, write_crosscity, write_png
from PIL import Image

from uda_jax.labels import CODINGS, IGNORE


def raw_ids(coding: str) -> tuple[int, ...]:
    """Raw ids that are classes."""
    return tuple(raw for raw, name in CODINGS[coding].items() if name)


def write_tree(row: Mapping, root: Path, count: int = 3) -> None:
    """The folders that a reader's row points to, and the row's root to them."""
    root.mkdir(parents=True, exist_ok=True)
    row["root"] = str(TREES[row["reader"]](row, root, count) or root)


def _cityscapes(row, root, count):
    write_cityscapes(root, row["split"], count)


def _crosscity(row, root, count):
    write_crosscity(root, row["city"], row["split"], count)


def _weather(row, root, count):
    write_cityscapes(root, row["split"], count)
    endings = {"foggy": "foggy_beta_0.02", "rain": "rain_alpha_0.03_beta_0.015"}
    for clear in (root / "leftImg8bit").rglob("*.png"):
        for weather in row["weather"]:
            folder = (
                root
                / f"leftImg8bit_{weather}"
                / clear.parent.relative_to(root / "leftImg8bit")
            )
            pixels = cv2.imread(str(clear)) // 2
            write_png(folder / f"{clear.stem}_{endings[weather]}.png", pixels)


def _gta5(row, root, count):
    (root / "labels").mkdir()
    for number in range(1, count + 1):
        image, label = draw(number, raw_ids("gta5"))
        write_png(root / f"images/{number:05d}.png", image)
        palette = Image.fromarray(label)
        palette.putpalette([value for i in range(256) for value in (i, 255 - i, 9)])
        palette.save(root / f"labels/{number:05d}.png")
    everything = np.arange(1, count + 1)[:, None]
    splits = {"trainIds": everything, "valIds": everything, "testIds": everything}
    scipy.io.savemat(root / "split.mat", splits)


def _synthia(row, root, count):
    first = 9000 if row["split"] == "val" else 0
    image, label = draw(0, raw_ids("synthia"))
    pixels = np.zeros((*label.shape, 3), np.uint16)
    pixels[..., 2] = label  # OpenCV's order: the file's first channel
    for number in range(first, first + count):
        write_png(root / f"RGB/{number:07d}.png", image)
        write_png(root / f"GT/LABELS/{number:07d}.png", pixels)


def _acdc(row, root, count):
    for condition in row["conditions"] or ("fog", "night", "rain", "snow"):
        _adverse(root, f"{condition}/{row['split']}", count)


def _dark_zurich(row, root, count):
    _adverse(root, f"{row['split']}/night", count)


def _adverse(root, folder, count):
    for number in range(count):
        image, label = draw(number, raw_ids("cityscapes_train_ids"))
        name = f"{folder}/GOPR0356/{folder[:3]}_frame_{number:06d}"
        write_png(root / f"rgb_anon/{name}_rgb_anon.png", image)
        write_png(root / f"gt/{name}_gt_labelTrainIds.png", label)


def _parking(row, root, count):
    for number in range(count):
        image, label = draw(number, (*range(7), IGNORE))
        write_png(root / f"image/{row['split']}/{number}.png", image)
        write_png(root / f"label/{row['split']}/{number}.png", label)


def _camvid(row, root, count):
    for sequence in row["sequences"] or ("Seq05VD",):
        for frame in range(count - 1):
            image, label = draw(frame, raw_ids=range(11))
            name = f"{sequence}_{row['split']}{frame}"
            write_png(root / row["split"] / f"images/{name}.png", image)
            write_png(root / row["split"] / f"labels/{name}.png", label)


def _folder(row, root, count):
    for number in range(count):
        image, label = draw(number)
        write_png(root / f"images/{number}.png", image)
        write_png(root / f"labels/{number}.png", label)


def _manifest(row, root, count):
    """A ranking's: train ids that every label space has, at half the images' size."""
    lines = [json.dumps({"about": {"part": "easy"}})]
    for number in range(count):
        image, label = draw(number, range(7))
        write_png(root / f"images/{number}.png", image)
        write_png(root / f"labels/{number}.png", label[::2, ::2])
        pair = {"image": f"images/{number}.png", "label": f"labels/{number}.png"}
        lines.append(json.dumps(pair))
    path = root / "list.jsonl"
    path.write_text("\n".join(lines))
    return path


TREES: dict[str, Callable] = {
    "cityscapes": _cityscapes,
    "cityscapes_weather": _weather,
    "crosscity": _crosscity,
    "gta5": _gta5,
    "synthia": _synthia,
    "acdc": _acdc,
    "dark_zurich": _dark_zurich,
    "parking": _parking,
    "camvid": _camvid,
    "folder": _folder,
    "manifest": _manifest,
}
