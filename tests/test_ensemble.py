import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from uda_jax import ensemble, runs, trained
from uda_jax.augment import normalize
from uda_jax.benchmarks import label_space_of, open_dataset
from uda_jax.checkpoints import Checkpoints
from uda_jax.data.resizing import resize_image
from uda_jax.errors import UserError
from uda_jax.metrics import Report
from uda_jax.models import MODELS
from uda_jax.models.layers import resize_bilinear
from uda_jax.models.model import Model, Prediction
from uda_jax.predict import Predictor

SIZE, COARSE = (32, 40), (4, 5)


def coarse_network(num_classes, *, power=1, batch_norm, compute_dtype, remat):
    """Logits are a matrix times the (colour ** power) of each 8 x 8 block."""

    def init(key):
        return {"matrix": 9 * jax.random.normal(key, (3, num_classes))}, {}

    def forward(params, batch_stats, image, *, train, rngs=None, size=None):
        batch, height, width, _ = image.shape
        blocks = image.reshape(batch, height // 8, 8, width // 8, 8, 3).mean((2, 4))
        logits = blocks**power @ params["matrix"]
        size = size or image.shape[1:3]
        logits = resize_bilinear(logits, size, align_corners=True)
        return Prediction(logits), batch_stats

    return Model(init, forward)


@pytest.fixture(scope="module")
def make_run(tiny, tmp_path_factory):
    """make_run(name, seed, **fields) -> workdir of a run that was never trained."""
    folder = tmp_path_factory.mktemp("runs")

    def make(name, seed, model="linear", **fields):
        config = tiny(**fields)
        config.model = {"name": model, "power": 2 if model == "square" else 1}
        config.evaluation.size, config.evaluation.resize = SIZE, "direct"
        params, batch_stats = runs.make_model(config).init(jax.random.key(seed))
        runs.open_workdir(folder / name, config)
        checkpoints = Checkpoints(folder / name / "checkpoints")
        state = {"params": {"segmentor": params}, "batch_stats": batch_stats}
        checkpoints.save(seed, state)
        checkpoints.close()
        return folder / name

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(MODELS, "linear", coarse_network)
        patch.setitem(MODELS, "square", coarse_network)
        yield make


@pytest.fixture(scope="module")
def two(make_run):
    return make_run("first", 3), make_run("second", 4, model="square")


@pytest.fixture(scope="module")
def scored(two, tmp_path_factory):
    output = tmp_path_factory.mktemp("ensembles") / "both"
    names = ",".join(map(str, two))
    arguments = ["--runs", names, "--weights", "0.25,0.75", "--output", str(output)]
    ensemble.main(arguments)
    return output


def test_adds_weighted_logits_and_counts_what_wins(two, scored):
    members = ensemble.load_members(two, (0.25, 0.75))
    config = members[0].run.config
    item = open_dataset(config.test, label_space_of(config))[0]
    image = normalize(jnp.asarray(resize_image(item["image"], SIZE, "area")))
    coarse = [member.forward(image[None], size=COARSE)[0] for member in members]
    # Interpolation is linear: the sum of the coarse logits, resized once.
    total = 0.25 * coarse[0] + 0.75 * coarse[1]
    label = item["label"]
    wins = np.asarray(
        resize_bilinear(total, label.shape, align_corners=True).argmax(-1)
    )
    counts, known = np.zeros((13, 13), int), label < 255
    np.add.at(counts, (label[known], wins[known]), 1)
    report = Report.load(scored / "report.json")
    np.testing.assert_array_equal(report.confusions[0], counts)
    assert len(np.unique(wins)) > 1


def test_tells_each_member_beside_the_ensemble(two, scored):
    report = Report.load(scored / "report.json")
    assert report.provenance["network"] == "0.25 linear + 0.75 square"
    assert "coarse logits resized to the label (96 x 128)" in report.protocol
    rows = report.provenance["members"]
    assert [row["run"] for row in rows] == [str(workdir) for workdir in two]
    assert [(row["weight"], row["step"]) for row in rows] == [(0.25, 3), (0.75, 4)]
    for row in rows:
        assert row["gain"] == pytest.approx(report.miou - row["miou"])
        low, high = row["gain_interval_95"]
        assert low <= high
    page = (scored / "report.html").read_text()
    assert "Beside it" in page and str(two[1]) in page
    json.loads((scored / "report.json").read_text())


def test_the_order_of_members_changes_nothing(two, scored):
    photo = np.random.default_rng(0).integers(0, 256, (32, 40, 3), dtype=np.uint8)
    one = Predictor.from_workdirs(two, (0.25, 0.75))(photo)
    other = Predictor.from_workdirs(two[::-1], (0.75, 0.25))(photo)
    np.testing.assert_array_equal(one.ids, other.ids)
    np.testing.assert_allclose(one.confidence, other.confidence, atol=1e-5)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ((0.5,), "--weights 0.5 does not fit 2 runs"),
        ((1.5, -0.5), "positive number"),
        ((float("nan"), 0.5), "positive number"),
        ((0.5, 5.0), "sum to 5.5"),
    ],
)
def test_weights_that_do_not_fit(two, weights, message):
    with pytest.raises(UserError, match=message):
        ensemble.load_members(two, weights)


def test_runs_that_do_not_fit(two, make_run, tmp_path):
    first, _ = two
    with pytest.raises(UserError, match="two runs or more; --runs names 1"):
        ensemble.load_members([first])
    with pytest.raises(UserError, match="names a run twice"):
        ensemble.load_members([first, first.parent / "." / first.name])
    with pytest.raises(UserError, match="none is not the workdir of a run"):
        ensemble.load_members([first, tmp_path / "none"])
    with pytest.raises(UserError, match="has no best checkpoint"):
        ensemble.load_members(two, checkpoint="best")
    flipped = make_run("flipped", 5, evaluation={"flip": True})
    with pytest.raises(UserError, match=r"differ in evaluation\.flip: False -> True"):
        ensemble.load_members([first, flipped])
    other = make_run("other", 6, test={"root": "elsewhere"})
    ensemble.load_members([first, other])  # to look at photographs
    with pytest.raises(UserError, match=r"differ in test.root: .* -> elsewhere"):
        ensemble.load_members([first, other], on="test")


def test_mistakes_in_the_command(two, scored):
    arguments = ["--runs", *map(str, two), "--output"]  # spaces do as well as commas
    with pytest.raises(UserError, match="holds something"):
        ensemble.main([*arguments, str(scored)])
    with pytest.raises(UserError, match='"a,b" are no numbers'):
        ensemble.main([*arguments, "new", "--weights", "a,b"])
    with pytest.raises(UserError, match=r"0\.4,0\.5 sum to 0\.9"):
        ensemble.main([*arguments, "new", "--weights", "0.4", "0.5"])


def test_looks_for_all_checkpoints_before_it_loads_one(two, make_run, monkeypatch):
    empty = make_run("empty", 7)
    shutil.rmtree(empty / "checkpoints")
    monkeypatch.setattr(trained, "load_run", None)  # not called
    with pytest.raises(UserError, match="empty has no checkpoint yet"):
        ensemble.load_members([two[0], empty])
