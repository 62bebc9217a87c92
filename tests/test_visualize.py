import io
import json
import re

import numpy as np
import pytest
from PIL import Image

from uda_jax import curves, panels, visualize
from uda_jax.files import write_atomically
from uda_jax.labels import LabelSpace
from uda_jax.metrics import Report
from uda_jax.report import write_report

COLORS = np.array([[128, 64, 128], [0, 0, 142], [70, 130, 180]], np.uint8)
NAMES = ("road", "car", "sky")


def make_report(boost):
    confusions = np.ones((4, 3, 3), np.int64) * 10 + np.eye(3, dtype=np.int64) * boost
    provenance = {"network": "bisenet", "step": 9, "size": [256, 512], "flip": False}
    return Report(confusions.sum(0), NAMES, (0, 1, 2), 4, provenance, confusions)


def test_colours_by_id_and_black_for_ignored():
    label = np.array([[0, 2], [255, 3]], np.uint8)
    picture = visualize.colorize(label, COLORS)
    expected = [[[128, 64, 128], [70, 130, 180]], [[0, 0, 0], [0, 0, 0]]]
    np.testing.assert_array_equal(picture, expected)
    assert picture.dtype == np.uint8


def test_overlay_goes_from_photograph_to_colours():
    image = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    label = np.ones((6, 8), np.uint8)
    np.testing.assert_array_equal(visualize.overlay(image, label, COLORS, 0.0), image)
    solid = visualize.overlay(image, label, COLORS, 1.0)
    assert (solid == COLORS[1]).all()
    ignored = np.full((6, 8), 255, np.uint8)
    np.testing.assert_array_equal(visualize.overlay(image, ignored, COLORS), image)


def test_heat_is_darker_where_unsure_and_clips():
    picture = visualize.heat(np.array([[0.0, 1.0, -3.0, 7.0, np.nan]]))
    assert picture.shape == (1, 5, 3) and picture.dtype == np.uint8
    assert picture[0, 0].sum() < picture[0, 1].sum()
    np.testing.assert_array_equal(picture[0, 2], picture[0, 0])
    np.testing.assert_array_equal(picture[0, 3], picture[0, 1])
    np.testing.assert_array_equal(picture[0, 4], 0)


def test_keep_pales_what_was_dropped():
    picture = visualize.colorize(np.zeros((2, 2), np.uint8), COLORS)
    kept = visualize.keep(picture, np.array([[True, False], [False, True]]))
    np.testing.assert_array_equal(kept[0, 0], COLORS[0])
    assert kept[0, 1].min() >= 200


def test_panel_holds_every_picture_at_its_place():
    solid = lambda c, h, w: np.full((h, w, 3), c, np.uint8)
    rows = [
        {"image": solid(10, 20, 40), "label": solid(20, 20, 40)},
        {"image": solid(30, 40, 40)},
    ]
    picture = visualize.panel(
        rows, captions=["a.png", "b.png"], title="t", cell_width=100
    )
    count = lambda c: np.all(picture == c, axis=-1).sum()
    assert (count(10), count(20), count(30)) == (50 * 100, 50 * 100, 100 * 100)
    columns = np.flatnonzero(np.all(picture == 20, axis=-1).any(0))
    assert columns.min() > np.flatnonzero(np.all(picture == 10, axis=-1).any(0)).max()
    with_legend = visualize.panel(rows, legend_of=(NAMES, COLORS), cell_width=100)
    for color in COLORS:
        assert np.all(with_legend == color, axis=-1).sum() > 40
    with pytest.raises(ValueError, match="1 captions for 2 rows"):
        visualize.panel(rows, captions=["a.png"])
    with pytest.raises(ValueError, match="uint8"):
        visualize.panel([{"image": np.zeros((4, 4, 3))}])


def test_legend_breaks_into_rows():
    wide = visualize.legend(NAMES, COLORS, width=600)
    narrow = visualize.legend(NAMES, COLORS, width=90)
    assert wide.shape[1] == 600 and narrow.shape[1] == 90
    assert len(narrow) == 3 * len(wide)


def test_stack_keeps_every_picture_and_fills_with_paper():
    wide, narrow = (np.full((2, w, 3), w, np.uint8) for w in (7, 4))
    picture = visualize.stack([wide, narrow])
    assert picture.shape == (4, 7, 3)
    np.testing.assert_array_equal(picture[:2], wide)
    np.testing.assert_array_equal(picture[2:, :4], narrow)
    np.testing.assert_array_equal(picture[2:, 4:], 255)


SPACE = LabelSpace("test", NAMES, COLORS, dict(enumerate(NAMES)))


@pytest.fixture
def columns(monkeypatch):
    """columns(images) -> [(caption, pictures)] in the order of the panel."""
    seen = []

    def remember(rows, **options):
        seen.extend((name, [row[name] for row in rows]) for name in rows[0])
        return visualize.panel(rows, **options)

    monkeypatch.setattr(panels, "panel", remember)

    def draw(images):
        seen.clear()
        picture = panels.panel_picture(images, SPACE, "step 3")
        assert picture.dtype == np.uint8 and picture.shape[-1] == 3
        return list(seen)

    return draw


def stage_two(weight):
    """What a mix shows of two examples, in the order of the alphabet."""
    solid = lambda value: np.full((2, 8, 12, 3), value, np.float32)
    mask = np.arange(12) < 6
    return {
        "kept": np.ones((2, 8, 12), bool),
        "mixed": solid(1.0),
        "mixed_label": np.full((2, 8, 12), 1),
        "mixed_mask": np.broadcast_to(mask, (2, 8, 12)),
        "mixed_pseudo_label": np.full((2, 8, 12), 2),
        "mixed_source": solid(0.5),
        "mixed_weight": np.stack([np.full((8, 12), w, np.float32) for w in weight]),
        "source": solid(0.2),
        "target": solid(0.4),
        "target_confidence": np.full((2, 8, 12), 0.5, np.float32),
    }


def test_a_panel_reads_from_source_to_target_to_mixed(columns):
    shown = columns(stage_two((1.0, 1.0)))
    own = ["source", "target", "target confidence (0 to 1)", "kept"]
    mixed = ["mixed source", "mixed mask", "mixed", "mixed pseudo label"]
    mixed += ["mixed label", "mixed weight (0 to 1)"]
    assert [name for name, _ in shown] == [*own, *mixed]
    pictures = dict(shown)
    # A mixed mask lies over the mixed picture, another over the target.
    np.testing.assert_array_equal(pictures["mixed mask"][1][:, :6], 255)
    np.testing.assert_array_equal(pictures["mixed mask"][1][:, 6:], 251)
    np.testing.assert_array_equal(pictures["kept"][0], 102)
    np.testing.assert_array_equal(pictures["mixed label"][0][0, 0], COLORS[1])


def test_a_heat_map_above_one_is_scaled_and_says_so(columns):
    pictures = dict(columns(stage_two((0.75, 2.95))))
    # Both rows on one scale, and no value beyond its end.
    shown = pictures["mixed weight (0 to 3)"]
    for picture, value in zip(shown, (0.75, 2.95), strict=True):
        np.testing.assert_array_equal(
            picture[0, 0], visualize.heat(np.array([[value / 3]]))[0, 0]
        )
    np.testing.assert_array_equal(
        pictures["target confidence (0 to 1)"][0][0, 0],
        visualize.heat(np.array([[0.5]]))[0, 0],
    )


def test_a_panel_without_a_mix_is_one_group(columns):
    images = {k: v for k, v in stage_two((1, 1)).items() if not k.startswith("mixed")}
    names = [name for name, _ in columns(images)]
    assert names == ["source", "target", "target confidence (0 to 1)", "kept"]


def test_mixes_on_both_domains_come_in_the_order_they_are_made(columns):
    images = stage_two((1, 1))
    images["mixed_template"] = images.pop("mixed_source")
    images["mixed_on_source"] = images["mixed"]
    images["mixed_of_a_new_mix"] = images["mixed"]
    shown = [name for name, _ in columns(images) if name.startswith("mixed")]
    assert shown[:4] == ["mixed template", "mixed mask", "mixed on source", "mixed"]
    assert shown[-1] == "mixed of a new mix"


@pytest.mark.parametrize("ignored", [0, 1])
def test_the_legend_names_ignored_pixels_where_there_are_any(monkeypatch, ignored):
    legends = []

    def remember(names, colors, **options):
        legends.append((list(names), colors.tolist()))
        return np.full((4, options["width"], 3), 255, np.uint8)

    monkeypatch.setattr(visualize, "legend", remember)
    images = stage_two((1, 1))
    images["mixed_label"][:, :ignored] = 255
    panels.panel_picture(images, SPACE, "")
    names, colors = [*NAMES, "ignored"], [*COLORS.tolist(), [0, 0, 0]]
    count = len(NAMES) + ignored
    assert legends == [(names[:count], colors[:count])]


def test_contact_sheet_counts_its_cells():
    pictures = [np.full((10, 20, 3), 7, np.uint8)] * 5
    sheet = visualize.contact_sheet(pictures, list("abcde"), columns=2, cell_width=40)
    assert np.all(sheet == 7, axis=-1).sum() == 5 * 20 * 40


def test_smooth_keeps_a_constant_and_lags_a_jump():
    np.testing.assert_allclose(curves.smooth([3.0] * 5, 0.9), 3.0)
    after = curves.smooth([0.0] * 20 + [1.0] * 3, 0.9)
    assert 0 < after[20] < after[22] < 1


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]), (3, 390, [100, 200, 300]), (5, 5, [5])],
)
def test_ticks_are_round(low, high, expected):
    np.testing.assert_allclose(curves.ticks(low, high), expected)


def test_series_takes_the_later_row_of_a_step_and_skips_what_is_no_number():
    rows = [
        {"step": 1, "loss/total": 3.0},
        {"step": 2, "loss/total": float("nan"), "note": "x"},
        {"step": 1, "loss/total": 2.0},
    ]
    assert curves.series(rows) == {"loss/total": [(1, 2.0)]}


@pytest.mark.parametrize("count", [1, 2, 200])
def test_charts_stay_inside_their_frame(count):
    points = [(i, (-1) ** i * 1e3 if i == 50 else 0.5 + i / 400) for i in range(count)]
    svg = curves.line_chart("loss/a&b", points)
    assert "loss/a&amp;b" in svg and "nan" not in svg
    for line in re.findall(r'polyline class="\w+" points="([^"]*)"', svg):
        for x, y in (map(float, p.split(",")) for p in line.split()):
            assert 0 <= x <= 320 and 0 <= y <= 150


def test_report_is_one_file_with_all_that_was_given(tmp_path):
    rng = np.random.default_rng(0)
    photo = rng.integers(0, 256, (64, 700, 3), dtype=np.uint8)
    label = visualize.colorize(rng.integers(0, 3, (64, 700)), COLORS)
    before, after = make_report(50), make_report(200)
    history = [
        {"step": s, "loss/total": 1 / (s + 1), "eval/miou": s / 100, "time/x": 1.0}
        for s in range(5)
    ]
    path = write_report(
        tmp_path,
        title="tufl <minicity>",
        report=after,
        baseline=before,
        baseline_name="source only",
        colors=COLORS,
        config={"method": {"name": "tufl", "gamma": 2.0}},
        history=history,
        strips=[{"image": photo, "label": label}],
        strip_captions=["a.png"],
        commands=["python -m uda_jax.main --config configs/a.py --workdir runs/a"],
        versions={"jax": "0.10.2"},
    )
    assert path == tmp_path / "report.html"
    page = path.read_text()
    assert "tufl &lt;minicity&gt;" in page and "<minicity>" not in page
    assert f"{100 * after.miou:.1f}" in page
    assert f"{100 * (after.miou - before.miou):+.1f}" in page
    for text in (*NAMES, "source only", "method.gamma", "jax 0.10.2", "a.png"):
        assert text in page
    assert "--config configs/a.py" in page
    assert "data:image/jpeg" in page and "data:image/png" in page
    assert page.count("<svg") == 2 and "time/x" not in page
    # Nothing is fetched and nothing runs.
    assert "<script" not in page and "http" not in page
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]


def test_report_needs_only_the_scores(tmp_path):
    report = make_report(50)
    path = write_report(
        tmp_path, title="t", report=report, colors=COLORS, config={"seed": 0}
    )
    page = path.read_text()
    assert "gain" not in page.split("</style>")[1] and "<svg" not in page
    assert json.dumps([256, 512]) in page


def test_failed_writing_leaves_the_old_file(tmp_path, monkeypatch):
    path = write_atomically(tmp_path / "a" / "x.txt", "old")

    def fail(*_):
        raise OSError("no space")

    monkeypatch.setattr("uda_jax.files.os.replace", fail)
    with pytest.raises(OSError, match="no space"):
        write_atomically(path, "new")
    assert path.read_text() == "old"
    assert [p.name for p in path.parent.iterdir()] == ["x.txt"]


def test_a_label_map_without_its_palette_is_the_same_in_grey():
    label = np.random.default_rng(0).integers(0, 20, (7, 13)).astype(np.uint8)
    label[0, 0] = 255
    painted = visualize.png(label, colors=np.full((20, 3), 9, np.uint8))
    with Image.open(io.BytesIO(visualize.without_palette(painted))) as grey:
        grey.verify()  # the chunks' checksums
    with Image.open(io.BytesIO(visualize.without_palette(painted))) as grey:
        assert grey.mode == "L"
        np.testing.assert_array_equal(np.asarray(grey), label)
    with Image.open(io.BytesIO(painted)) as image:
        assert image.mode == "P"
        np.testing.assert_array_equal(np.asarray(image), label)
