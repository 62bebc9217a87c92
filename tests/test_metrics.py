import dataclasses
import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from uda_jax import metrics, scores
from uda_jax.confusion import Confusion, confusion_matrix
from uda_jax.errors import UserError

# label x prediction: class 0 has 3 pixels (2 found), class 1 has 4 (3 found), class 2
# occurs nowhere.
BY_HAND = np.array([[2, 1, 0], [1, 3, 0], [0, 0, 0]])


def make_report(seed=0, images=5, classes=(0, 1, 2), boost=0):
    rng = np.random.default_rng(seed)
    confusions = rng.integers(1, 50, (images, 3, 3))
    confusions += np.eye(3, dtype=int) * (rng.integers(1, 200, (images, 1, 1)) + boost)
    return metrics.Report(
        confusion=confusions.sum(0),
        class_names=("road", "car", "sky"),
        classes=classes,
        num_images=images,
        provenance={"network": "bisenet", "step": 7, "scales": [1.0]},
        confusions=confusions,
        image_names=tuple(f"image{i}" for i in range(images)),
    )


def test_confusion_matrix_counts_labels_in_rows_and_ignores_255():
    label = jnp.array([[[0, 0, 0, 255], [1, 1, 1, 1]]], jnp.uint8)
    prediction = jnp.array([[[0, 0, 1, 2], [1, 1, 1, 0]]])
    counts = jax.jit(confusion_matrix, static_argnums=2)(prediction, label, 3)
    assert counts.dtype == jnp.int32
    np.testing.assert_array_equal(counts, BY_HAND[None])


def test_confusion_matrix_keeps_images_apart():
    rng = np.random.default_rng(0)
    label = rng.choice([0, 1, 2, 3, 255], (4, 9, 7)).astype(np.uint8)
    prediction = rng.integers(0, 4, (4, 9, 7))
    counts = np.asarray(confusion_matrix(prediction, label, 4))
    for b in range(4):
        for i in range(4):
            for j in range(4):
                expected = np.sum((label[b] == i) & (prediction[b] == j))
                assert counts[b, i, j] == expected


def test_all_ignored_counts_nothing():
    label = np.full((1, 4, 4), 255, np.uint8)
    assert confusion_matrix(np.zeros((1, 4, 4), int), label, 3).sum() == 0


def test_scores_by_hand():
    iou = scores.iou_per_class(BY_HAND)
    np.testing.assert_allclose(iou[:2], [2 / 4, 3 / 5])
    assert np.isnan(iou[2])
    assert scores.miou(BY_HAND) == pytest.approx(0.55)
    assert np.isnan(scores.miou(BY_HAND, strict=True))
    assert scores.miou(BY_HAND, [0, 1], strict=True) == pytest.approx(0.55)
    assert scores.miou(BY_HAND, [1]) == pytest.approx(0.6)
    assert scores.pixel_accuracy(BY_HAND) == pytest.approx(5 / 7)
    assert scores.mean_accuracy(BY_HAND) == pytest.approx((2 / 3 + 3 / 4) / 2)


def test_nothing_counted_is_nan_not_a_warning():
    empty = np.zeros((3, 3), int)
    with np.errstate(all="raise"):
        assert np.isnan(scores.miou(empty))
        assert np.isnan(scores.pixel_accuracy(empty))
        assert np.isnan(scores.mean_accuracy(empty))


def test_more_correct_pixels_raise_every_score():
    better = BY_HAND + np.diag([1, 0, 0])
    for score in (scores.miou, scores.pixel_accuracy, scores.mean_accuracy):
        assert score(better) > score(BY_HAND)


def test_clu_metric_merges_to_the_same_counts():
    rng = np.random.default_rng(1)
    logits = rng.normal(size=(4, 5, 6, 3)).astype(np.float32)
    label = rng.choice([0, 1, 2, 255], (4, 5, 6)).astype(np.uint8)
    whole = Confusion.from_model_output(logits=logits, label=label)
    first, second = (
        Confusion.from_model_output(logits=logits[part], label=label[part])
        for part in (slice(0, 1), slice(1, 4))
    )
    merged = first.merge(second)
    np.testing.assert_array_equal(merged.matrix, whole.matrix)
    assert merged.compute()["miou"] == scores.miou(np.asarray(whole.matrix))


def test_host_sums_pass_two_to_the_31():
    huge = Confusion(matrix=np.int64([[2**31, 0], [0, 1]]))
    assert huge.merge(huge).matrix[0, 0] == 2**32


def test_bootstrap_of_equal_images_is_a_point():
    same = np.repeat(BY_HAND[None], 6, axis=0)
    low, high = scores.bootstrap_interval(same)
    assert low == pytest.approx(0.55) and high == pytest.approx(0.55)


def test_bootstrap_brackets_the_score_and_narrows_with_images():
    few, many = make_report(images=5), make_report(images=200)
    for report in (few, many):
        low, high = report.interval
        assert low < report.miou < high
    assert np.diff(many.interval) < np.diff(few.interval)
    again = scores.bootstrap_interval(few.confusions, few.classes)
    assert again == few.interval


def test_paired_difference_is_narrower_than_the_two_scores():
    before = make_report(images=20)
    better = before.confusions + np.eye(3, dtype=int) * 20
    low, high = scores.bootstrap_difference(before.confusions, better)
    assert 0 < low < high
    assert high - low < np.diff(before.interval)[0]
    with pytest.raises(ValueError, match="same images"):
        scores.bootstrap_difference(before.confusions, better[:-1])


def test_report_evaluates_only_its_classes():
    report = make_report(classes=(0, 2))
    assert list(report.iou_per_class) == ["road", "sky"]
    assert report.miou == pytest.approx(np.mean(list(report.iou_per_class.values())))


def test_report_survives_its_file(tmp_path):
    report = make_report()
    report.save(tmp_path / "report.json")
    loaded = metrics.Report.load(tmp_path / "report.json")
    assert loaded.to_json() == report.to_json()
    assert loaded.image_names == report.image_names
    values = json.loads((tmp_path / "report.json").read_text())
    assert values["provenance"]["network"] == "bisenet"
    assert values["miou"] == report.miou
    left = {p.name for p in tmp_path.iterdir()}
    assert left == {"report.json", "report_images.npz"}


def test_absent_class_is_null_in_json_and_named_in_the_table():
    report = metrics.Report(BY_HAND, ("road", "car", "sky"), (0, 1, 2), 1)
    values = json.loads(json.dumps(report.to_json(), allow_nan=False))
    assert values["iou_per_class"]["sky"] is None
    assert values["miou_strict"] is None and values["absent_classes"] == ["sky"]
    table = report.table()
    assert "mIoU (2 classes)" in table and "55.0" in table
    assert "not in the mean: sky." in table


def test_table_shows_the_gain():
    before, after = make_report(), make_report(boost=100)
    gain = f"{100 * (after.miou - before.miou):+.1f}"
    row = next(r for r in after.table(before).splitlines() if "mIoU" in r)
    assert row.split()[-1] == gain and gain.startswith("+")


def test_unreadable_report_is_one_sentence(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        metrics.Report.load(tmp_path / "report.json")
    (tmp_path / "report.json").write_text("{}")
    with pytest.raises(UserError, match="is not a report"):
        metrics.Report.load(tmp_path / "report.json")


def test_interval_needs_two_images():
    one = np.asarray(BY_HAND)[None]
    report = metrics.Report(BY_HAND, ("a", "b", "c"), (0, 1), 1, confusions=one)
    assert report.interval is None
    assert "interval" not in report.table()


def test_gain_has_a_paired_interval():
    before, after = make_report(images=20), make_report(images=20, boost=30)
    expected = scores.bootstrap_difference(before.confusions, after.confusions)
    assert after.gain_interval(before) == expected and expected[0] > 0
    low, high = (100 * x for x in expected)
    line = f"95 % interval of the gain: {low:+.1f} to {high:+.1f}."
    assert line in after.table(before)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"classes": (0, 1)}, "counts other classes"),
        ({"image_names": tuple("abcde")}, "is of other images"),
        ({"provenance": {"protocol": "flip"}}, r"was scored otherwise \(flip\)"),
        ({"provenance": {}}, r"was scored otherwise \(not recorded how\)"),
    ],
)
def test_unlike_scores_are_not_compared_silently(change, told):
    report = dataclasses.replace(make_report(), provenance={"protocol": "no flip"})
    other = dataclasses.replace(report, **change)
    assert re.fullmatch(told, report.unlike(other))
    assert report.gain_interval(other) is None
    assert re.search(f"Not like with like: before {told}.", report.table(other))
    assert "like with like" not in report.table(report)
