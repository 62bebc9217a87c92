"""minicity: deterministic, labelled exactly, never half written."""

import json

import numpy as np
import pytest

from uda_jax.data import minicity
from uda_jax.data.minicity_draw import Camera, Canvas
from uda_jax.data.minicity_people import draw_person
from uda_jax.data.minicity_scene import Thing
from uda_jax.data.minicity_style import (
    CAR,
    CITIES,
    CLASS_IDS,
    PERSON,
    POLE,
    ROAD,
    SKY,
    SOURCE,
    TARGET,
)
from uda_jax.data.minicity_vehicles import draw_vehicle
from uda_jax.errors import UserError

COUNTS = {"source": 2, "source_val": 1, "target": 2, "test": 1}


@pytest.fixture(scope="module")
def pictures():
    """Twelve pictures of either city."""
    return {city: [minicity.draw(city, 7, i) for i in range(12)] for city in CITIES}


def _files(root):
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): path.read_bytes() for path in files}


@pytest.mark.parametrize("city", ["source", "target"])
def test_draw_shapes_and_ids(pictures, city):
    for image, label in pictures[city]:
        assert image.shape == (256, 512, 3) and image.dtype == np.uint8
        assert label.shape == (256, 512) and label.dtype == np.uint8
        assert set(np.unique(label)) <= {POLE, *CLASS_IDS.values()}


@pytest.mark.parametrize("city", ["source", "target"])
def test_every_class_occurs(pictures, city):
    labels = np.stack([label for _, label in pictures[city]])
    for name, i in CLASS_IDS.items():
        images = (labels == i).sum((1, 2)) > 0
        assert images.mean() >= 0.1, name


def test_draw_is_deterministic_and_varies(pictures):
    image, label = minicity.draw("target", 7, 3)
    assert np.array_equal(image, pictures["target"][3][0])
    assert np.array_equal(label, pictures["target"][3][1])
    assert not np.array_equal(image, pictures["target"][4][0])
    assert not np.array_equal(image, minicity.draw("target", 8, 3)[0])


def test_image_and_label_are_aligned(pictures):
    """In the game, sky and road differ in colour right up to the label's edges."""
    for image, label in pictures["source"]:
        sky, road = image[label == SKY], image[label == ROAD].astype(float)
        if len(sky) > 200:
            assert sky[:, 2].mean() > road[:, 2].mean() + 60
        spread = road.max(-1) - road.min(-1)  # asphalt and white paint are grey
        assert np.median(spread) < 30


@pytest.mark.parametrize("shift", [0, 6])
def test_edges_of_a_car_lie_on_its_label(shift):
    """Moving the label by six pixels must make the agreement worse; 0 is the best."""
    canvas = _canvas()
    rng = np.random.default_rng(0)
    draw_vehicle(canvas, Thing("sedan", 0.5, 9.0), rng)
    image, label = canvas.finish()
    drawn = image.max(-1) > 0  # the canvas is black elsewhere
    agreement = (drawn == (np.roll(label, shift, 1) == CAR)).mean()
    assert (agreement > 0.995) == (shift == 0)


def _canvas():
    camera = Camera(focal=390.0, height=1.5, pitch=0.03, offset=0.0)
    return Canvas(camera, SOURCE, 0.0, (0, 0, 0))


def test_farther_things_are_smaller_by_the_square():
    areas = []
    for s in (6.0, 12.0, 24.0):
        canvas = _canvas()
        draw_person(canvas, Thing("person", 0.3, s), np.random.default_rng(1))
        areas.append((canvas.label == PERSON).sum())
    assert areas[0] / areas[1] == pytest.approx(4, rel=0.15)
    assert areas[1] / areas[2] == pytest.approx(4, rel=0.25)


def test_projection_of_known_points():
    camera = Camera(focal=400.0, height=1.5, pitch=0.0, offset=1.0)
    pixels, depth = camera.project(np.array([[1.0, 1.5, 10.0], [3.0, 0.0, 20.0]]))
    assert np.allclose(pixels, [[256, 128], [256 + 400 * 2 / 20, 128 + 400 * 1.5 / 20]])
    assert np.allclose(depth, [10, 20])


def test_ground_is_the_inverse_of_the_projection():
    camera = Camera(focal=350.0, height=2.1, pitch=0.1, offset=0.4, bend=0.006)
    t, s, first = camera.ground()
    for row, column in ((10, 100), (120, 700), (250, 1000)):
        point = np.array([[t[row, column], 0.0, s[row, 0]]])
        pixel, _ = camera.project(point)
        assert np.allclose(
            pixel[0], [(column + 0.5) / 2, (first + row + 0.5) / 2], atol=0.1
        )


def test_cities_differ_in_style(pictures):
    """The target is greyer and noisier than the source."""
    measure = {}
    for city, drawn in pictures.items():
        images = np.stack([image for image, _ in drawn]).astype(float)
        colour = (images.max(-1) - images.min(-1)).mean()
        grain = np.median(np.abs(np.diff(images, axis=2)))
        measure[city] = colour, grain
    assert measure["source"][0] > 1.3 * measure["target"][0]
    assert measure["target"][1] > measure["source"][1]
    assert SOURCE.texture == 0 < TARGET.texture


def test_write_equals_for_any_number_of_workers(tmp_path):
    seen = []
    one = minicity.write(
        tmp_path / "one", workers=1, progress=lambda *x: seen.append(x), **COUNTS
    )
    two = minicity.write(tmp_path / "two", workers=2, **COUNTS)
    assert _files(one) == _files(two)
    assert seen == [(i, 6) for i in range(1, 7)]
    names = set(_files(one))
    images = [n for n in names if "leftImg8bit/" in n or "/Images/" in n]
    assert len(images) == 6 and len(names) == 13
    for name in images:
        label = name.replace("leftImg8bit/", "gtFine/").replace("/Images/", "/Labels/")
        if name.startswith("source"):
            label = label.replace("_leftImg8bit.png", "_gtFine_labelIds.png")
        else:
            label = label.replace(".png", "_eval.png")
        assert label in names
    assert sum("/train/" in n or "/Train/" in n for n in images) == 4
    facts = json.loads((one / "minicity.json").read_text())
    assert facts == {"version": minicity.VERSION, "seed": 0, **COUNTS}


def test_write_again(tmp_path, monkeypatch):
    counts = {"source": 1, "source_val": 0, "target": 0, "test": 0}
    root = minicity.write(tmp_path / "city", workers=1, **counts)
    monkeypatch.setattr(minicity, "draw", lambda *_: pytest.fail("drew again"))
    assert minicity.write(root, workers=1, **counts) == root
    with pytest.raises(UserError, match="seed"):
        minicity.write(root, seed=1, workers=1, **counts)
    with pytest.raises(UserError, match="source"):
        minicity.write(root, workers=1, **{**counts, "source": 2})
    (tmp_path / "other").mkdir()
    with pytest.raises(UserError, match=r"minicity\.json"):
        minicity.write(tmp_path / "other", workers=1, **counts)
    with pytest.raises(UserError, match="0 or more"):
        minicity.write(tmp_path / "none", source=-1)


def test_interrupted_writing_leaves_nothing(tmp_path):
    def interrupt(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        minicity.write(tmp_path / "city", workers=1, progress=interrupt, **COUNTS)
    assert list(tmp_path.iterdir()) == []


def test_unknown_city():
    with pytest.raises(UserError, match="atlantis"):
        minicity.draw("atlantis", 0, 0)


def test_two_processes_may_write_at_once(tmp_path, monkeypatch):
    counts = dict(source=1, source_val=0, target=1, test=0)
    root, draw_all = tmp_path / "city", minicity._draw_all

    def overtaken(*arguments):
        monkeypatch.setattr(minicity, "_draw_all", draw_all)
        minicity.write(root, workers=1, **counts)
        draw_all(*arguments)

    monkeypatch.setattr(minicity, "_draw_all", overtaken)
    assert minicity.write(root, workers=1, **counts) == root
    assert [path.name for path in tmp_path.iterdir()] == ["city"]  # nothing left over
