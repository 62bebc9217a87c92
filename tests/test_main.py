import json
import re
import runpy
import sys

import grain.python  # noqa: F401 - first used in a flagsaver, its flags would be lost
import pytest
from absl import flags
from absl.testing import flagsaver
from conftest import (
    SOURCE_ONLY,
    draw,
    start,
    write_cityscapes,
    write_config,
    write_minicity,
    write_png,
)

from uda_jax import main, program, train
from uda_jax.errors import UserError
from uda_jax.training_data import open_training_data


@pytest.fixture
def command(monkeypatch, capfd):
    """command(*arguments) -> (exit code, stdout, stderr) of the program, in process."""
    monkeypatch.setenv("MALLOC_ARENA_MAX", "2")  # the tests' own memory stays as it is

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["main.py", *map(str, arguments)])
        code = 0
        with flagsaver.flagsaver():
            try:
                program.run(main.main)
            except SystemExit as stop:
                code = stop.code
            finally:
                flags.FLAGS.unparse_flags()
        out, err = capfd.readouterr()
        return code, out, err

    yield run
    flags.FLAGS(["tests"])


@pytest.fixture
def world(tmp_path, tiny):
    """A config file, a workdir and data of its own to break."""
    root = write_minicity(tmp_path / "data")
    config = tiny(SOURCE_ONLY)
    config.source.root = str(root / "source")
    config.target.root = config.test.root = str(root / "target")
    file = write_config(tmp_path / "config.py", config)
    return root, file, tmp_path / "run"


def assert_one_sentence(err, *words):
    assert err.startswith("uda_jax: "), err
    assert err.count("\n") == 1 and err.endswith((".\n", "?\n")), err
    assert "Traceback" not in err, err
    for word in words:
        assert word in err, err


OPTIONS = {
    "misspelt key": ("--config.stepz=5", "stepz", 'did you mean "steps"'),
    "misspelt inner key": ("--config.optimizer.momentun=1", 'mean "momentum"'),
    "wrong type": ("--config.steps=many", "steps", "many", "whole number"),
    "wrong inner type": ("--config.optimizer.learning_rate=fast", "fast", "number"),
    "wrong bool": ("--config.remat=perhaps", "remat", "perhaps"),
    "wrong tuple": ("--config.data.source.crop_size=(3,a)", "crop_size", "(3,a)"),
    "row as a name": ("--config.optimizer=adam", "optimizer"),
    "misspelt flag": ("--wrokdir=x", "wrokdir", "workdir"),
    "not a flag": ("train", '"train" is no option'),
    "mode": ("--mode=test", "mode", "train", "evaluate"),
    "method": ("--config.method.name=tuffl", '"tuffl" is unknown', 'mean "tufl"'),
    "method value": ("--config.method.class_weights=big", '"big"'),
    "model": ("--config.model.name=deeplab2", 'did you mean "deeplabv2"'),
    "width": ("--config.model.width=0.0", "width"),
    "batch": ("--config.accumulate_steps=3", "batch_size=4", "multiple of 3"),
    "reader": ("--config.source.reader=cityscape", 'did you mean "cityscapes"'),
    "folder": ("--config.source.root=/no/where", "/no/where", "does not exist"),
    "city": ("--config.test.city=Minicty", "did you mean", "Minicity"),
    "split": ("--config.source.split=trian", "did you mean", "train"),
    "label space": ("--config.label_space=camvid11", "camvid11"),
    "init_from": ("--config.init_from=/no/run", "init_from=/no/run"),
    "learning rate": ("--config.optimizer.learning_rate=0.0", "above 0"),
    "crop": ("--config.data.source.crop_size=(0,64)", "crop_size"),
    "threads": ("--config.data.threads=-1", "threads=-1"),
    "evaluation": ("--config.evaluation.mode=chip", 'did you mean "chips"'),
    "coordinator": ("--num_processes=2", "--coordinator"),
}


@pytest.mark.parametrize("case", OPTIONS)
def test_mistakes_on_the_command_line(command, world, case):
    _, file, workdir = world
    option, *words = OPTIONS[case]
    code, _, err = command(f"--config={file}", f"--workdir={workdir}", option)
    assert code == 2, err
    assert_one_sentence(err, *words)
    assert not workdir.exists()


def test_missing_arguments_and_config_files(command, world):
    _, file, workdir = world
    broken, typo = file.with_name("broken.py"), file.with_name("typo.py")
    broken.write_text("def get_config(:\n")
    typo.write_text("def get_config():\n    return reslution\n")
    for arguments, word in [
        ([f"--config={file}"], "--workdir"),
        ([f"--workdir={workdir}"], "--config"),
        (["--config=configs/nothing.py", f"--workdir={workdir}"], "nothing.py"),
        (["--config=configs/tufl_rio.py:roma", f"--workdir={workdir}"], "rome"),
        ([f"--config={file}", f"--workdir={workdir}", "--mode=evaluate"], "config.js"),
        ([f"--config={broken}", f"--workdir={workdir}"], "broken.py"),
        ([f"--config={typo}", f"--workdir={workdir}"], "'reslution'"),
    ]:
        code, _, err = command(*arguments)
        assert code == 2
        assert_one_sentence(err, word)
    assert not workdir.exists()


def source_files(root, index=0):
    name = f"town_{index:06d}_000019"
    return (
        root / f"source/leftImg8bit/train/town/{name}_leftImg8bit.png",
        root / f"source/gtFine/train/town/{name}_gtFine_labelIds.png",
    )


def no_label(root):
    source_files(root, 3)[1].unlink()
    return "no label", "town_000003_000019"


def empty_folder(root):
    for path in (root / "target/Minicity/Images/Train").iterdir():
        path.unlink()
    return "no images", "Images/Train"


def other_size(root):
    path = source_files(root)[1]
    write_png(path, draw(0)[1][:80])
    return str(path), "80 x 128", "96 x 128"


def cut_off(root):
    path = source_files(root)[0]
    path.write_bytes(path.read_bytes()[:500])
    return str(path), "damaged"


def not_an_image(root):
    path = source_files(root)[0]
    path.write_text("<html>not found</html>")
    return str(path), "neither a PNG nor a JPEG"


def unknown_id(root):
    path = source_files(root)[1]
    label = draw(0)[1]
    label[3, 4] = 77
    write_png(path, label)
    return str(path), "77", "0-33"


def label_in_colour(root):
    path = source_files(root)[1]
    write_png(path, draw(0)[0])
    return str(path), "colours"


@pytest.mark.parametrize(
    "spoil",
    [
        *(no_label, empty_folder, other_size, cut_off),
        *(not_an_image, unknown_id, label_in_colour),
    ],
)
def test_mistakes_in_the_data(command, world, spoil):
    root, file, workdir = world
    words = spoil(root)
    code, _, err = command(f"--config={file}", f"--workdir={workdir}")
    assert code == 2
    assert_one_sentence(err, *words)
    assert not workdir.exists()


def test_debug_shows_the_traceback(command, world, monkeypatch):
    _, file, workdir = world
    with pytest.raises(UserError, match="nowhere"):
        command(
            f"--config={file}",
            f"--workdir={workdir}",
            "--config.source.root=nowhere",
            "--debug",
        )


def test_workdir_of_another_config(command, world):
    _, file, workdir = world
    workdir.mkdir()
    code, _, err = command("--config=" + str(file), "--workdir=" + str(file))
    assert code == 2
    assert_one_sentence(err, "is not a run")
    (workdir / "notes.txt").write_text("mine")
    code, _, err = command(f"--config={file}", f"--workdir={workdir}")
    assert code == 2
    assert_one_sentence(err, str(workdir), "no config.json")
    (workdir / "notes.txt").unlink()
    namespace = {}
    exec(file.read_text(), namespace)
    other = namespace["get_config"]()
    other.steps = 77
    other.log_every = 99  # changes no number, so it may differ
    (workdir / "config.json").write_text(other.to_json())
    code, _, err = command(f"--config={file}", f"--workdir={workdir}")
    assert code == 2
    assert_one_sentence(err, "another config", "steps: 77 -> 4", "another --workdir")
    assert "log_every" not in err
    assert [p.name for p in workdir.iterdir()] == ["config.json"]


def test_help(command):
    code, out, _ = command("--help")
    assert code == 0
    for word in ("--workdir", "--mode", "debug", "configs/tufl_rio.py"):
        assert word in out


def test_a_mistake_found_while_training(command, world):
    """As a real process, because nothing but the sentence may be on stderr."""
    root, file, workdir = world
    # Not those of the first batch, which is looked at before anything is written.
    config = runpy.run_path(str(file))["get_config"]()
    data = open_training_data(config, needs_target=False, workdir=workdir)
    with data.batches(0) as batches:
        first = next(batches)[1]
    names = [source_files(root, i)[0] for i in range(6)]
    names = [path for path in names if path.name[:11] not in str(first)]
    assert names
    whole = {path: path.read_bytes() for path in names}
    for path in names:
        path.write_bytes(whole[path][:500])
    process = start(file, workdir, "--config.data.threads=2")
    _, err = process.communicate()
    assert process.returncode == 2
    assert_one_sentence(err, "leftImg8bit/train/town/town_0000", "damaged")
    assert {p.name for p in workdir.iterdir()} >= {"config.json"}
    assert not list((workdir / "checkpoints").glob("*"))
    for path, data in whole.items():
        path.write_bytes(data)
    # The corrected data, the same command: it trains; then --mode=evaluate.
    process = start(file, workdir)
    out, err = process.communicate()
    assert process.returncode == 0, err
    assert err == ""
    assert re.search(r"step 4/4 .*left", out) and "report.html" in out
    code, out, err = command(
        *(f"--config={file}", f"--workdir={workdir}"),
        *("--mode=evaluate", "--checkpoint=best"),
    )
    assert code == 0, err
    assert "mIoU" in out and "at step 4" in out
    saved = json.loads((workdir / "evaluate_best.json").read_text())
    wanted = json.loads((workdir / "report.json").read_text())
    assert saved["miou"] == wanted["miou"]


def test_a_folder_without_its_train_split(command, world, tmp_path):
    _, file, workdir = world
    write_cityscapes(tmp_path / "cs", "val", 1)
    code, _, err = command(
        f"--config={file}",
        f"--workdir={workdir}",
        f"--config.source.root={tmp_path / 'cs'}",
    )
    assert code == 2
    assert_one_sentence(err, '"train" is unknown', "val")


@pytest.mark.parametrize("method", ["minent", "advent"])
def test_a_mistake_that_only_the_step_shows_claims_no_workdir(tiny, tmp_path, method):
    config, words = tiny({"name": method}), "aux_weight needs an auxiliary head"
    if method == "advent":
        config.method.update({"adversarial_aux_weight": 0.0, "aux_weight": 0.0})
        row = {"name": "adam", "learning_rate": 1e-3, "weight_decay": 0.0}
        config.discriminator = {"optimizer": row, "schedule": {"name": "constant"}}
        config.data.source.crop_size = config.data.target.crop_size = (24, 24)
        words = "got 24x24"
    with pytest.raises(UserError, match=words):
        train.fit(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()
