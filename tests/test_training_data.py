"""Which data a run reads: originals or prepared, and the same when it goes on."""

import json
import os
import shutil

import numpy as np
import pytest
from conftest import write_config, write_minicity
from ml_collections import ConfigDict

from uda_jax.benchmarks import base_config
from uda_jax.class_weights import class_weights
from uda_jax.data import daformer_statistics, prepare
from uda_jax.data.daformer_statistics import write_daformer
from uda_jax.data.statistics import class_counts
from uda_jax.errors import UserError
from uda_jax.training_data import open_training_data


@pytest.fixture
def config(tmp_path):
    write_minicity(tmp_path / "city")
    config = base_config("minicity")
    config.source.root = str(tmp_path / "city/source")
    config.target.root = config.test.root = str(tmp_path / "city/target")
    for geometry in (config.data.source, config.data.target):
        geometry.resize, geometry.crop_size = (48, 64), (32, 32)
    config.data.prepared, config.data.threads = str(tmp_path / "prepared"), 0
    return config


DUAL_SOFT = {"name": "tufl", "mix": {"name": "dual_soft"}}
STREAMS = {
    "paste": {"name": "long_tail", "classes": ("person", "car")},
    "template": {"name": "uniform"},
}


def begin(config, workdir):
    """What a run leaves behind that has a checkpoint."""
    opened(config, workdir).record(workdir)
    (workdir / "checkpoints/1").mkdir(parents=True)


def opened(config, workdir):
    return open_training_data(config, needs_target=True, workdir=workdir)


def prepare_all(config, format="png"):
    source, target, _ = prepare.benchmarks.open_datasets(config)
    for domain, dataset in (("source", source), ("target", target)):
        row = config.data[domain]
        ops = prepare.build(prepare.GEOMETRIES, "geometry", row)
        fixed, _ = prepare.split_fixed(ops)
        prepare.prepare(
            dataset,
            fixed,
            config.data.prepared,
            name=config[domain].reader,
            format=format,
        )


def first_batches(data):
    with data.batches(0) as batches:
        return [next(batches) for _ in range(3)]


def test_prepared_data_is_read_where_it_fits_and_gives_the_same_batches(
    config, tmp_path
):
    config.method, config.data.streams = ConfigDict(DUAL_SOFT), STREAMS
    before = opened(config, tmp_path / "run")
    assert before.reads == {"source": "original files", "target": "original files"}
    prepare_all(config)
    after = opened(config, tmp_path / "run")
    assert "source from cityscapes/48x64-area-png-" in after.summary()
    assert "target from crosscity/48x64-area-png-" in after.summary()
    assert not after.target.has_labels
    assert {len(batch) for batch, _ in first_batches(after)} == {4}
    for (a, names), (b, others) in zip(
        first_batches(before), first_batches(after), strict=True
    ):
        assert names == others
        for domain in a:
            assert a[domain].keys() == b[domain].keys()
            for key in a[domain]:
                np.testing.assert_array_equal(a[domain][key], b[domain][key])


def test_why_a_set_is_not_read_is_said(config, tmp_path):
    prepare_all(config)
    config.data.source.resize = (60, 80)
    data = opened(config, tmp_path / "run")
    assert data.reads["source"] == "original files"
    (note,) = data.notes
    assert "was made with Resize(size=(48, 64)" in note and note in data.summary()


def test_a_run_that_goes_on_reads_what_it_read_before(config, tmp_path):
    run = tmp_path / "run"
    begin(config, run)
    prepare_all(config, "jpeg")
    assert opened(config, run).reads["source"] == "original files"
    second = tmp_path / "second"
    begin(config, second)
    recorded = json.loads((second / "data.json").read_text())
    assert "-jpeg-" in recorded["source"]["reads"]
    prepare_all(config)  # PNG comes before JPEG, but not in the middle of a run
    assert "-jpeg-" in opened(config, second).reads["source"]
    assert "-png-" in opened(config, tmp_path / "third").reads["source"]
    shutil.rmtree(config.data.prepared)
    message = "read its source images from cityscapes/48x64.* is not below"
    with pytest.raises(UserError, match=message):
        opened(config, second)
    config.data.prepared = ""
    with pytest.raises(UserError, match=r"data\.prepared is empty"):
        opened(config, second)
    (run / "data.json").write_text('{"source": {"reads": 3}}')
    with pytest.raises(UserError, match=r"data\.json, which .* is damaged"):
        opened(config, run)


@pytest.mark.parametrize("prepares", [True, False])
def test_a_run_that_goes_on_says_that_the_originals_changed(config, tmp_path, prepares):
    if prepares:
        prepare_all(config)
    run = tmp_path / "run"
    begin(config, run)
    image = next((tmp_path / "city/source").rglob("*_leftImg8bit.png"))
    os.utime(image, (1, 1))
    message = ("have changed since the run", "original files have changed")
    with pytest.raises(UserError, match=message[prepares]):
        opened(config, run)


def test_a_set_that_is_named_directly_is_said(config, tmp_path):
    prepare_all(config)
    (folder,) = (tmp_path / "prepared/cityscapes").glob("*/*")
    config.source = ConfigDict({"reader": "prepared", "root": str(folder)})
    reads = opened(config, tmp_path / "run").reads
    assert reads["source"] == f"cityscapes/{folder.parent.name}"


def test_statistics_of_daformer_are_taken_where_they_are_given(config, tmp_path):
    config.data.sampling.unlock()
    config.data.sampling = {"name": "rare_class", "min_pixels": 1, "temperature": 0.1}
    source = opened(config, tmp_path / "run").source
    write_daformer(class_counts(source, None), source, tmp_path)
    own = first_batches(opened(config, tmp_path / "run"))
    config.data.class_statistics = str(tmp_path)
    given = first_batches(opened(config, tmp_path / "run"))
    assert [names for _, names in own] == [names for _, names in given]
    (tmp_path / "sample_class_stats.json").write_text("[]")
    with pytest.raises(UserError, match="has no entry for 6 of 6 labels"):
        first_batches(opened(config, tmp_path / "run"))


def test_streams_are_built_from_their_rows(config, tmp_path):
    plain = first_batches(opened(config, tmp_path))
    config.method, config.data.streams = ConfigDict(DUAL_SOFT), STREAMS
    streamed = first_batches(opened(config, tmp_path))
    for (batch, names), (before, _) in zip(streamed, plain, strict=True):
        assert set(batch) == set(names) == {"source", "target", "paste", "template"}
        assert sorted(batch["paste"]["class"]) == [7, 9]  # two places
        paste = batch["paste"]
        for label, train_id in zip(paste["label"], paste["class"], strict=True):
            assert train_id in label
        for domain in before:
            for key, x in before[domain].items():
                np.testing.assert_array_equal(x, batch[domain][key])


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (
            {"name": "long_tail", "min_pixel": 1},
            '"long_tail" has no option "min_pixel"',
        ),
        ({"name": "long_tial"}, '"long_tial" is unknown .did you mean "long_tail"'),
        ({"min_pixels": 1}, 'has no name: give its row a "name"'),
        ("long_tail", "='long_tail' is no row"),
    ],
)
def test_a_mistake_in_a_row_says_in_which_stream(config, tmp_path, row, words):
    config.method = ConfigDict(DUAL_SOFT)
    config.data.streams = {"template": {"name": "uniform"}, "paste": row}
    with pytest.raises(UserError, match=rf"^data\.streams\.paste ?{words}") as caught:
        opened(config, tmp_path)
    assert str(caught.value).count(". ") == 0


@pytest.mark.parametrize("method", [{"name": "tufl", "mix": {}}, {"name": "minent"}])
def test_a_stream_without_a_mix_is_refused(config, tmp_path, method):
    config.method, config.data.streams = ConfigDict(method), STREAMS
    with pytest.raises(UserError, match=r"^data\.streams\.paste is not read by method"):
        opened(config, tmp_path)


def test_class_weights_of_the_datas_own_frequencies(config, tmp_path):
    data = opened(config, tmp_path / "run")
    row = data.with_class_weights({"name": "tufl", "class_weights": "frequencies"})
    frequencies = class_counts(data.source, None).frequencies
    np.testing.assert_allclose(
        row["class_weights"], 1 / np.log(1.1 + frequencies), rtol=1e-6
    )
    fixed = {"name": "tufl", "class_weights": "middle"}
    assert data.with_class_weights(fixed) == fixed
    mix = {"name": "single", "class_weights": "frequencies"}
    both = data.with_class_weights({**fixed, "mix": mix})
    assert both == {**fixed, "mix": {**mix, "class_weights": row["class_weights"]}}
    with pytest.raises(UserError, match="counted in a run's labels"):
        class_weights("frequencies", 13)


def test_the_command_writes_daformers_files(tmp_path, capsys):
    write_minicity(tmp_path / "city")
    file = write_config(tmp_path / "c.py", base_config("minicity"))
    roots = [f"--config.source.root={tmp_path}/city/source", "--config.data.prepared="]
    daformer_statistics.main([f"--config={file}", f"--out={tmp_path}", *roots])
    names = ("sample_class_stats", "sample_class_stats_dict", "samples_with_class")
    assert all((tmp_path / f"{name}.json").is_file() for name in names)
    assert "6 labels" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"no field --config\.sorce"):
        daformer_statistics.main([f"--config={file}", "--out=x", "--config.sorce=1"])


def test_a_method_that_learns_from_a_target_needs_one(config, tmp_path):
    config.target.reader = ""
    assert open_training_data(config, needs_target=False, workdir=tmp_path)
    with pytest.raises(UserError, match=r"target\.reader is empty"):
        opened(config, tmp_path)
