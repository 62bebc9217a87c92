import subprocess
import sys
import types

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest
from PIL import Image

from uda_jax import benchmarks, convert, load_model, predict, torch_files, weights
from uda_jax.errors import UserError
from uda_jax.labels import LABEL_SPACES
from uda_jax.models import create_model
from uda_jax.models.model import Model, Prediction
from uda_jax.predict import Predictor

SPACE = LABEL_SPACES["crosscity13"]


def bright_is_sky(image):
    """Class 6 (sky) where the pixel is bright, class 0 (road) where it is dark."""
    bright = image.mean(-1, keepdims=True) * 4
    logits = jnp.full((*image.shape[:3], 13), -20.0)
    return logits.at[..., 0].set(0.0).at[..., 6:7].set(bright)


@pytest.fixture
def photo(tmp_path):
    image = np.zeros((24, 40, 3), np.uint8)
    image[:12] = 255
    path = tmp_path / "in" / "street.png"
    path.parent.mkdir()
    Image.fromarray(image).save(path)
    return path


EVALUATION = benchmarks.base_config("own").evaluation.to_dict()


def fake_run(tmp_path, monkeypatch):
    """A trained run, without the training."""

    def forward(params, batch_stats, image, *, train, rngs=None, size=None):
        return Prediction(bright_is_sky(image) * params["one"]), batch_stats

    run = types.SimpleNamespace(
        model=Model(init=None, forward=forward),
        params={"one": jnp.float32(1)},
        batch_stats={},
        label_space=SPACE,
        config=ml_collections.ConfigDict(
            {"evaluation": {**EVALUATION, "mode": "sliding", "window": (16, 16)}}
        ),
    )
    module = types.ModuleType("uda_jax.trained")
    module.load_run = lambda workdir, checkpoint="latest": run
    monkeypatch.setitem(sys.modules, "uda_jax.trained", module)


def test_result_has_the_photographs_own_size(photo):
    for options in (
        {},
        {"size": (12, 20)},
        {"mode": "sliding", "window": (8, 8), "batch_size": 4},
        {"mode": "chips", "window": (32, 32)},
    ):
        result = Predictor(bright_is_sky, SPACE, **options)(photo)
        assert result.name == "street"
        assert result.ids.shape == (24, 40) and result.ids.dtype == np.uint8
        # The rows next to the horizon may mix when the network saw another size.
        np.testing.assert_array_equal(result.ids[:10], 6)
        np.testing.assert_array_equal(result.ids[14:], 0)
        assert 0.9 < result.confidence[0, 0] <= 1
        np.testing.assert_array_equal(result.colors[0, 0], SPACE.colors[6])
        assert result.overlay.shape == result.heat.shape == (24, 40, 3)


def test_saved_ids_are_the_ids(photo, tmp_path):
    result = Predictor(bright_is_sky, SPACE)(photo)
    paths = result.save(tmp_path / "out")
    names = ["street_ids.png", "street_color.png", "street_overlay.png"]
    assert [p.name for p in paths] == names
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == sorted(names)
    with Image.open(paths[0]) as saved:
        assert saved.mode == "L"
        np.testing.assert_array_equal(np.asarray(saved), result.ids)
    with Image.open(paths[1]) as saved:
        np.testing.assert_array_equal(np.asarray(saved), result.colors)


def test_arrays_are_photographs_too():
    image = np.full((5, 7, 3), 255, np.uint8)
    assert (Predictor(bright_is_sky, SPACE)(image).ids == 6).all()
    with pytest.raises(UserError, match=r"uint8 \[H, W, 3\]"):
        Predictor(bright_is_sky, SPACE)(image.astype(np.float32))


def test_turned_photographs_are_set_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held upright
    image = Image.fromarray(np.zeros((10, 20, 3), np.uint8))
    image.save(tmp_path / "turned.jpg", exif=exif)
    assert predict.read_photo(tmp_path / "turned.jpg").shape == (20, 10, 3)


def test_folder_is_read_in_order_and_other_files_are_left(photo):
    for name in ("b.jpg", "a.PNG"):
        Image.new("RGB", (4, 4)).save(photo.parent / name)
    (photo.parent / "notes.txt").write_text("no image")
    names = [p.name for p in predict.find_photos(photo.parent)]
    assert names == ["a.PNG", "b.jpg", "street.png"]
    Image.new("RGB", (4, 4)).save(photo.parent / "b.png")
    with pytest.raises(UserError, match="would both be written as b_ids"):
        predict.find_photos(photo.parent)


def test_workdir_brings_the_runs_own_way_of_looking(photo, tmp_path, monkeypatch):
    fake_run(tmp_path, monkeypatch)
    result = Predictor.from_workdir("runs/x")(photo)
    whole = Predictor.from_workdir("runs/x", mode="whole", size=(24, 40))(photo)
    np.testing.assert_array_equal(result.ids, whole.ids)


def test_command_writes_three_files_per_photograph(
    photo, tmp_path, monkeypatch, capsys
):
    fake_run(tmp_path, monkeypatch)
    Image.new("RGB", (9, 7)).save(photo.parent / "night.jpg")
    out = tmp_path / "out"
    predict.main(
        ["--workdir", "runs/x", "--input", str(photo.parent), "--output", str(out)]
    )
    assert len(list(out.iterdir())) == 6
    assert Image.open(out / "night_overlay.png").size == (9, 7)
    assert "2 images segmented" in capsys.readouterr().out


@pytest.mark.parametrize(
    "mode, kept", [("whole", True), ("sliding", True), ("chips", False)]
)
def test_another_mode_keeps_the_runs_resize_if_it_has_it(mode, kept, monkeypatch):
    run = types.SimpleNamespace(
        label_space=SPACE,
        config=ml_collections.ConfigDict(
            {"evaluation": {**EVALUATION, "resize": "logits", "align_corners": False}}
        ),
    )
    seen = {}
    monkeypatch.setattr(
        Predictor, "__init__", lambda self, *_, **options: seen.update(options)
    )
    options = {} if mode == "whole" else {"window": (8, 8)}
    Predictor._of_run(run, bright_is_sky, {"mode": mode, **options})
    ours = {key: seen.get(key) for key in ("resize", "align_corners")}
    wanted = ("logits", False) if kept else (None, None)
    assert tuple(ours.values()) == wanted


@pytest.mark.parametrize("label_space", ["", "crosscity13"])
def test_weights_from_a_file(photo, tmp_path, label_space):
    model = create_model("bisenet", 13, width=0.125)
    tensors = convert.to_torch(*model.init(jax.random.key(0)), model.torch.to_torch)
    raw = torch_files.write(tmp_path / "tufl.pth", tensors)
    with pytest.raises(UserError, match="convert it first"):
        Predictor.from_file(raw, "crosscity13")
    path = tmp_path / "tufl.safetensors"
    weights.save(path, weights.load_weights_file(raw), raw)
    arguments = ["--weights", str(path), "--input", str(photo)]
    arguments += ["--output", str(tmp_path / "out")]
    with pytest.raises(UserError, match="leave it out with --weights"):
        predict.main([*arguments, "--checkpoint", "best"])
    if not label_space:
        with pytest.raises(UserError, match="say what its 13 classes are"):
            predict.main(arguments)
        return
    predict.main([*arguments, "--label_space", label_space])
    ids = np.asarray(Image.open(tmp_path / "out/street_ids.png"))
    image = np.asarray(Image.open(photo).convert("RGB"))
    logits = load_model(path)(image[None]).logits[0]
    np.testing.assert_array_equal(ids, np.argmax(logits, -1))


def test_bad_input_is_said_before_anything_is_loaded(photo, tmp_path):
    folder = tmp_path / "empty"
    folder.mkdir()
    broken = tmp_path / "broken.png"
    broken.write_bytes(photo.read_bytes()[:40])
    cases = {
        tmp_path / "none.png": "does not exist",
        folder: "holds no image",
        broken: "cannot be read as an image",
    }
    for path, message in cases.items():
        with pytest.raises(UserError, match=message):
            predict.main(
                [
                    "--workdir",
                    "w",
                    "--input",
                    str(path),
                    "--output",
                    str(tmp_path / "o"),
                ]
            )
    assert not (tmp_path / "o").exists()
    with pytest.raises(UserError, match="is a file"):
        predict.main(["--workdir", "w", "--input", str(photo), "--output", str(broken)])


def test_class_count_unlike_the_label_space(photo):
    with pytest.raises(UserError, match='has 3 classes and the label space "cross'):
        Predictor(lambda image: image, SPACE)(photo)


def test_program_ends_with_code_2_and_no_traceback(tmp_path):
    command = [sys.executable, "-m", "uda_jax.predict", "--workdir", str(tmp_path)]
    command += ["--input", str(tmp_path / "no.jpg"), "--output", str(tmp_path / "o")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert "no.jpg does not exist" in done.stderr and "Traceback" not in done.stderr
    done = subprocess.run([*command, "--debug"], capture_output=True, text=True)
    assert "Traceback" in done.stderr
