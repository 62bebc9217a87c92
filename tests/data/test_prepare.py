"""Preparing, and all that can stop it."""

import contextlib
import dataclasses
import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import pytest
from conftest import ROOT, draw, write_cityscapes, write_config, write_minicity
from small_files import refused

from uda_jax import benchmarks
from uda_jax.data import staging
from uda_jax.data.geometry import advent
from uda_jax.data.images import read_image
from uda_jax.data.prepare import main, prepare
from uda_jax.data.prepared import find_prepared, prepared
from uda_jax.data.sources import cityscapes, folder

HALF = advent(size=(48, 64))


@pytest.fixture
def dataset(tmp_path):
    write_cityscapes(tmp_path / "originals", "train", 6)
    return cityscapes(tmp_path / "originals", label_space="cityscapes19")


def files(place):
    return {path.name: path.read_bytes() for path in Path(place).iterdir()}


def count_reads(monkeypatch):
    """The images that are decoded from here on."""
    reads = []

    def read(path):
        reads.append(path)
        return read_image(path)

    monkeypatch.setattr("uda_jax.data.dataset.read_image", read)
    return reads


def nothing_counts(tmp_path, dataset):
    assert find_prepared(dataset, HALF, tmp_path / "sets") == (None, "")


def test_kill_9_and_go_on(tmp_path, monkeypatch):
    pixels, _ = draw(0, size=(256, 256))
    _, data = cv2.imencode(".png", pixels)
    (tmp_path / "images").mkdir()
    for number in range(250):
        (tmp_path / f"images/{number:03d}.png").write_bytes(data.tobytes())
    program = (
        "import sys\n"
        "from uda_jax.data.prepare import prepare\n"
        "from uda_jax.data.sources import folder\n"
        "dataset = folder(sys.argv[1], label_space='crosscity13', labels=False)\n"
        "prepare(dataset, (), sys.argv[2], threads=1)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path), str(tmp_path / "sets")],
        cwd=ROOT,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
    )
    deadline = time.monotonic() + 60
    while len(done := list((tmp_path / "sets").glob(".staging/*/[0-9]*.png"))) < 10:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert process.returncode == -signal.SIGKILL
    done = list((tmp_path / "sets").glob(".staging/*/[0-9]*.png"))
    assert 10 <= len(done) < 250
    dataset = folder(tmp_path, label_space="crosscity13", labels=False)
    assert find_prepared(dataset, (), tmp_path / "sets") == (None, "")
    reads = count_reads(monkeypatch)
    steps = []
    place = prepare(
        dataset, (), tmp_path / "sets", progress=lambda *step: steps.append(step)
    )
    assert len(reads) == 250 - len(done)
    assert steps[-1] == (250, 250)
    assert not list((tmp_path / "sets").glob(".staging/*/"))
    whole = prepare(dataset, (), tmp_path / "at_once")
    assert files(place) == files(whole)
    assert prepare(dataset, (), tmp_path / "sets") == place
    assert len(reads) == 2 * 250 - len(done)


def test_stopped_while_the_records_are_written(dataset, tmp_path, monkeypatch):
    def stop(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("uda_jax.data.prepare.seal", stop)
        with pytest.raises(KeyboardInterrupt):
            prepare(dataset, HALF, tmp_path / "sets", name="cityscapes")
    nothing_counts(tmp_path, dataset)
    reads = count_reads(monkeypatch)
    prepare(dataset, HALF, tmp_path / "sets", name="cityscapes")
    assert not reads and find_prepared(dataset, HALF, tmp_path / "sets")[0]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk(number, dataset, tmp_path, monkeypatch):
    write = staging.write_atomically

    def full(path, data):
        if len(list(path.parent.glob("[0-9]*.png"))) >= 4:
            raise OSError(number, os.strerror(number))
        return write(path, data)

    def make():
        return prepare(dataset, HALF, tmp_path / "sets", name="cityscapes", threads=1)

    with monkeypatch.context() as patch:
        patch.setattr(staging, "write_atomically", full)
        refused(make, str(tmp_path / "sets"), os.strerror(number), "with what is done")
    nothing_counts(tmp_path, dataset)
    reads = count_reads(monkeypatch)
    assert files(make()) == files(
        prepare(dataset, HALF, tmp_path / "2", name="cityscapes")
    )
    assert len(reads) == 4 + 6


def test_a_disk_that_is_full_of_records(dataset, tmp_path, monkeypatch):
    """ArrayRecord's writer says it in its own way."""
    from tensorflow_datasets.core import file_adapters

    def full(cls, path, iterator):
        Path(path).write_bytes(b"half")
        raise RuntimeError(message)

    def make():
        return prepare(dataset, HALF, tmp_path / "sets", name="cityscapes")

    with monkeypatch.context() as patch:
        patch.setattr(
            file_adapters.ArrayRecordFileAdapter, "write_examples", classmethod(full)
        )
        message = "write() failed: No space left on device; writing x; at byte 0"
        refused(make, "(No space left on device)", "make room", "with what is done")
        message = "open() failed: Permission denied; opening x; Failed to create"
        refused(make, "(Permission denied)", "choose a folder that can be written")
        message = "dictionary changed size"  # is no matter of the disk
        with pytest.raises(RuntimeError, match=message):
            make()
    nothing_counts(tmp_path, dataset)
    reads = count_reads(monkeypatch)
    assert make() and not reads


def test_a_file_that_vanishes_and_one_that_is_cut_off(dataset, tmp_path):
    def make():
        return prepare(dataset, HALF, tmp_path / "sets", name="cityscapes", threads=1)

    path = Path(dataset.store.images[3])
    before = path.read_bytes()
    path.write_bytes(before[:-30])
    refused(make, str(path), "damaged or cut off")
    nothing_counts(tmp_path, dataset)
    path.write_bytes(before)

    def vanish(done, count):
        Path(dataset.store.images[5]).unlink(missing_ok=True)

    def lose():
        prepare(dataset, HALF, tmp_path / "x", name="cityscapes", progress=vanish)

    refused(lose, dataset.store.images[5], "restore it")
    refused(make, dataset.store.images[5], "restore it")


def test_files_that_change_meanwhile(dataset, tmp_path):
    def change(done, count):
        os.utime(dataset.store.labels[0], (done, done))

    def make(progress=None):
        sets = tmp_path / "sets"
        return prepare(dataset, HALF, sets, name="cityscapes", progress=progress)

    refused(lambda: make(change), "files changed", "prepare the data again")
    nothing_counts(tmp_path, dataset)
    assert make()


def test_one_process_at_a_time(dataset, tmp_path):
    seen = []

    def make(progress=None):
        sets = tmp_path / "sets"
        return prepare(dataset, HALF, sets, name="cityscapes", progress=progress)

    def second(done, count):
        seen.append(refused(make, "another process is preparing", "wait for it"))

    assert make(second) and len(seen) == 6


def test_another_process_that_comes_first(dataset, tmp_path, monkeypatch):
    def make():
        return prepare(dataset, HALF, tmp_path / "sets", name="cityscapes")

    @contextlib.contextmanager
    def late(place):
        monkeypatch.setattr("uda_jax.data.prepare.alone", staging.alone)
        make()
        with staging.alone(place):
            yield

    monkeypatch.setattr("uda_jax.data.prepare.alone", late)
    reads = count_reads(monkeypatch)
    assert make().is_dir() and len(reads) == 6
    assert not list(tmp_path.glob("sets/.staging/*/"))


def test_folders_and_names_that_cannot_be(dataset, tmp_path):
    (tmp_path / "file").touch()
    said = refused(
        lambda: prepare(dataset, HALF, tmp_path / "file"),
        "(Not a directory): choose a folder that can be written",
    )
    assert "done" not in said and "make room" not in said
    names = (*dataset.names[:5], os.fsdecode(b"M\xfcnchen"))
    latin = dataclasses.replace(dataset, names=names)
    refused(lambda: prepare(latin, HALF, tmp_path / "x"), "M\\udcfcnchen", "not UTF-8")
    assert not (tmp_path / "x").exists()


def test_renamed_classes_and_other_weights_make_another_set(dataset, tmp_path):
    def made(**changes):
        other = dataclasses.replace(dataset, **changes)
        place = prepare(other, HALF, tmp_path / "sets", name="cityscapes")
        found, _ = find_prepared(other, HALF, tmp_path / "sets")
        assert found.coding == other.coding and found.weights == other.weights
        return json.loads((place / "metadata.json").read_text())

    assert made()["coding"]["7"] == "road"
    assert made(coding={**dataset.coding, 7: "way"})["coding"]["7"] == "way"
    for weight in (1.0, 2.0):
        assert made(weights=(weight,) * 6)["weights"] == [weight] * 6


def test_any_number_of_threads(dataset, tmp_path):
    mask = os.umask(0o027)
    try:
        places = [
            prepare(dataset, HALF, tmp_path / str(n), name="cityscapes", threads=n)
            for n in (1, 8)
        ]
        assert os.umask(0o027) == 0o027
    finally:
        os.umask(mask)
    assert files(places[0]) == files(places[1])


# Sets that are not whole


@pytest.fixture
def place(dataset, tmp_path):
    return prepare(dataset, HALF, tmp_path / "sets", name="cityscapes")


@pytest.mark.parametrize(
    "pattern",
    [
        "class_counts.npz",
        "dataset_info.json",
        "features.json",
        "files.json",
        "metadata.json",
        "*.array_record-*",
    ],
)
def test_missing_and_damaged_files(dataset, place, tmp_path, pattern):
    path, sets = next(place.glob(pattern)), tmp_path / "sets"

    def is_said():
        parts = (path.name, str(place), "delete", "prepare the data again")
        found, reason = find_prepared(dataset, HALF, sets)
        assert found is None and all(part in reason for part in parts)
        # And is not written over.
        refused(lambda: prepare(dataset, HALF, sets, name="cityscapes"), *parts)
        if path.exists():
            refused(lambda: prepared(place, label_space="cityscapes19"), *parts)

    whole = path.read_bytes()
    middle = len(whole) // 2
    other = bytes([whole[middle] ^ 1])
    damaged = [whole[:-3], b""]
    if "array" not in pattern and pattern != "files.json":  # see `seal`
        damaged.append(whole[:middle] + other + whole[middle + 1 :])
    for content in damaged:
        path.write_bytes(content)
        is_said()
    path.unlink()
    is_said()
    path.write_bytes(whole)
    assert find_prepared(dataset, HALF, sets)[0]


def test_what_copying_programs_leave(dataset, place, tmp_path):
    records = next(place.glob("*.array_record-*"))
    records.with_name(f".{records.name}.Xy12ab").write_bytes(records.read_bytes())
    assert find_prepared(dataset, HALF, tmp_path / "sets")[0]
    records.write_bytes(bytes(records.stat().st_size))  # room, but no content yet
    found, reason = find_prepared(dataset, HALF, tmp_path / "sets")
    assert found is None and "its records are damaged" in reason


# The command


@pytest.fixture
def config(tmp_path):
    config = benchmarks.base_config("minicity")
    write_minicity(tmp_path)
    config.source.root = str(tmp_path / "source")
    config.target.root = config.test.root = str(tmp_path / "target")
    config.data.prepared = str(tmp_path / "sets")
    for domain in ("source", "target"):
        config.data[domain] = {"name": "advent", "size": (48, 64)}
    return config


def test_the_command(config, tmp_path, capsys):
    path = write_config(tmp_path / "config.py", config)
    main(["--config", str(path), "--format", "jpeg", "--threads", "2"])
    out = capsys.readouterr().out
    assert "source: 6 examples of cityscapes, Resize(size=(48, 64)" in out
    assert "target: 6 of 6 examples" in out
    source, target, _ = benchmarks.open_datasets(config)
    for dataset, name in ((source, "cityscapes"), (target, "crosscity")):
        found, _ = find_prepared(dataset, HALF, tmp_path / "sets")
        assert found.store.folder in out
        assert f"sets/{name}/48x64-pillow_bicubic-jpeg-" in found.store.folder
    main(["--config", str(path), "--domains", "source", "--out", str(tmp_path / "b")])
    assert [p.name for p in (tmp_path / "b").glob("[a-z]*")] == ["cityscapes"]
    # A field of the config, set on the command line.
    main(["--config", str(path), "--config.target.reader=", f"--out={tmp_path / 'c'}"])
    assert "target: the config has none" in capsys.readouterr().out


def test_commands_that_cannot_be_carried_out(config, tmp_path, capsys):
    path = str(write_config(tmp_path / "config.py", config))
    refused(lambda: main(["--config", path, "--speed=1"]), '"--speed=1" is no option')
    refused(lambda: main(["--config", path, "--threads=0"]), "--threads=0")
    refused(lambda: main(["--config", path, "--config.sauce=1"]), "sauce")
    refused(lambda: main(["--config", str(tmp_path / "no.py")]), "no.py")
    refused(lambda: main(["--benchmark", "gta"]), "gta")
    empty = ["--config", path, "--config.data.prepared="]
    refused(lambda: main(empty), "--out")
    main(["--config", path, "--domains", "source"])
    config.source = {
        "reader": "prepared",
        "root": str(next((tmp_path / "sets").glob("*/*/*"))),
    }
    path = str(write_config(tmp_path / "second.py", config))
    refused(lambda: main(["--config", path]), "prepared data already")
