"""The README's recipe for a user's own data, word for word."""

import re

import numpy as np
import pytest
from conftest import NETWORK, ROOT, SOURCE_ONLY, draw, shrink, write_png
from ml_collections import ConfigDict

from uda_jax import benchmarks, weights
from uda_jax.errors import UserError
from uda_jax.loaded_model import load_model
from uda_jax.predict import Predictor
from uda_jax.train import fit


def recipe() -> ConfigDict:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    (text,) = (block for block in blocks if 'base_config("own")' in block)
    body = text.split("def get_config():\n")[1].rstrip()
    assert len(body.splitlines()) <= 10
    names = {}
    exec(text, names)
    return names["get_config"]()


@pytest.fixture
def config(tmp_path, monkeypatch, compilation_cache):
    monkeypatch.chdir(tmp_path)
    for root in ("data/2023", "data/2024", "data/test"):
        for number in range(2):
            image, label = draw(number, raw_ids=(0, 1, 2, 77))
            write_png(tmp_path / root / f"images/{number}.png", image)
            if root != "data/2024":
                write_png(tmp_path / root / f"labels/{number}.png", label)
    return recipe()


def test_the_recipe_trains_predicts_and_travels(config, tmp_path):
    source, target, test = benchmarks.open_datasets(config)
    assert set(np.unique(source[0]["label"])) <= {0, 1, 255}
    assert not target.has_labels and len(test) == 2
    config.model = ConfigDict(NETWORK)
    config.method = ConfigDict(dict(SOURCE_ONLY))
    report = fit(shrink(config, steps=1), tmp_path / "run")
    assert report.class_names == ("soil", "crop") and report.classes == (0, 1)
    result = Predictor.from_workdir(tmp_path / "run")(np.zeros((64, 64, 3), np.uint8))
    assert result.label_space.colors[1].tolist() == [60, 160, 40]
    # The classes stay with converted weights.
    file = tmp_path / "farm.safetensors"
    weights.save(file, weights.load_weights_file(tmp_path / "run"), tmp_path / "run")
    space = load_model(file).label_space
    assert space.name == "farm" and space.classes == ("soil", "crop")


def test_what_is_left_empty_is_said(config):
    config.source.root = ""
    with pytest.raises(UserError, match=r"root of a .* is empty: set source\.root"):
        benchmarks.open_datasets(config)
    config = benchmarks.base_config("own")
    with pytest.raises(UserError, match=r"label_space is empty.*classes of your own"):
        benchmarks.open_datasets(config)
