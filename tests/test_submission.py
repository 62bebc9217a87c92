"""What goes to the test servers of ACDC and Dark Zurich, and what would be refused."""

import io
import json
import re
import shutil
import subprocess
import sys
import zipfile

import jax
import numpy as np
import pytest
from conftest import NETWORK, draw, shrink, write_png
from ml_collections import ConfigDict
from PIL import Image

from uda_jax import runs, submission
from uda_jax.benchmarks import base_config
from uda_jax.checkpoints import Checkpoints
from uda_jax.data.expected import expected
from uda_jax.errors import UserError
from uda_jax.labels import LABEL_SPACES, own_label_space
from uda_jax.predict import Predictor
from uda_jax.submission import ABOUT, FOLDER, SERVERS, ZIP

SPACE = LABEL_SPACES["cityscapes19"]
SIZE = (32, 48)
TEST = ("fog/test/GOPR0475", "night/test/GP010376", "rain/test/GP020400")
NAMES = [f"{folder[-8:]}_frame_000161_rgb_anon.png" for folder in TEST]


@pytest.fixture(autouse=True)
def small_servers(monkeypatch):
    counts = {"test": 3, "val": 1}
    for name, server in list(SERVERS.items()):
        small = server._replace(counts=counts, size=SIZE)
        monkeypatch.setitem(SERVERS, name, small)


def write_image(path, seed, size=SIZE):
    write_png(path, draw(seed, size=size)[0])


@pytest.fixture(scope="module")
def world(compilation_cache, tmp_path_factory):
    """A run that was never trained, and images in ACDC's folders without any label."""
    folder = tmp_path_factory.mktemp("world")
    top = folder / "acdc/rgb_anon"
    for seed, (part, name) in enumerate(zip(TEST, NAMES, strict=True)):
        write_image(top / part / name, seed)
        clear = top / part.replace("test", "test_ref") / name
        write_image(clear.with_name(clear.name.replace("rgb", "rgb_ref")), 9)
    (top / "snow/test").mkdir(parents=True)
    for condition in ("fog", "night", "rain", "snow"):
        (top / condition / "val").mkdir(parents=True)
    write_image(top / "snow/val/GP030176/GP030176_frame_000001_rgb_anon.png", 7)
    config = shrink(base_config("cityscapes_to_acdc"))
    config.model = ConfigDict(NETWORK)
    config.target.root = config.test.root = str(folder / "acdc")
    config.evaluation.size = (16, 24)
    write_run(folder / "run", config)
    return folder


def write_run(folder, config, seed=3):
    """The workdir of a run with random weights that make more than one class."""
    params, stats = runs.make_model(config).init(jax.random.key(seed))
    large = lambda x: x * np.sqrt(1 / np.prod(x.shape[:3])) / x.std()
    params = jax.tree.map(lambda x: large(x) if x.ndim == 4 else x, params)
    runs.open_workdir(folder, config)
    checkpoints = Checkpoints(folder / "checkpoints")
    checkpoints.save(5, {"params": {"segmentor": params}, "batch_stats": stats})
    checkpoints.close()
    return folder


@pytest.fixture(scope="module")
def written(world):
    """The folder of a command that nothing stopped, and what it said."""
    with pytest.MonkeyPatch.context() as patch, io.StringIO() as said:
        small = SERVERS["acdc"]._replace(counts={"test": 3, "val": 1}, size=SIZE)
        patch.setitem(SERVERS, "acdc", small)
        patch.setattr("sys.stdout", said)
        output = world / "whole"
        submission.main([f"--workdir={world / 'run'}", f"--output={output}"])
        return output, said.getvalue()


def copied(written, folder):
    """The predictions alone, to be spoilt."""
    return shutil.copytree(written[0] / FOLDER, folder / "copy" / FOLDER).parent


# --- writing


def test_predictions_are_the_networks_in_palette_pngs(world, written):
    predictor = Predictor.from_workdir(world / "run")
    assert sorted(p.name for p in (written[0] / FOLDER).iterdir()) == sorted(NAMES)
    seen = set()
    for part, name in zip(TEST, NAMES, strict=True):
        ids = predictor(world / "acdc/rgb_anon" / part / name).ids
        with Image.open(written[0] / FOLDER / name) as picture:
            assert picture.mode == "P" and picture.size == SIZE[::-1]
            np.testing.assert_array_equal(np.asarray(picture), ids)
            colors = np.asarray(picture.convert("RGB"))
        np.testing.assert_array_equal(colors, SPACE.colors[ids])
        seen |= set(np.unique(ids))
    assert len(seen) > 1


def test_zip_holds_the_folder_alone_and_passes_its_check(world, written):
    output, said = written
    with zipfile.ZipFile(output / ZIP) as archive:
        assert sorted(archive.namelist()) == sorted(f"{FOLDER}/{n}" for n in NAMES)
        for name in NAMES:
            packed = archive.read(f"{FOLDER}/{name}")
            assert packed == (output / FOLDER / name).read_bytes()
            # Readable where it is unpacked.
            assert archive.getinfo(f"{FOLDER}/{name}").external_attr >> 16 == 0o644
    assert f"hand it in: {SERVERS['acdc'].url}" in said
    for names in ((), NAMES):
        assert submission.check(output / ZIP, "acdc", names=names) == []
        assert submission.check(output, "acdc", names=names) == []
    about = json.loads((output / ABOUT).read_text())
    assert about["step"] == 5 and about["network"] == str(world / "run")
    assert about["server"] == "acdc" and about["size"] == [16, 24]


def test_stopped_command_goes_on_without_predicting_again(
    world, written, tmp_path, monkeypatch
):
    predicted, call, write = [], Predictor.__call__, submission.write_atomically

    def counted(self, photo):
        predicted.append(photo)
        return call(self, photo)

    def stopped(path, data):
        if path.parent.name == FOLDER and len(predicted) == 3:
            raise KeyboardInterrupt
        return write(path, data)

    output = tmp_path / "out"
    monkeypatch.setattr(Predictor, "__call__", counted)
    monkeypatch.setattr(submission, "write_atomically", stopped)
    with pytest.raises(KeyboardInterrupt):
        submission.write(world / "run", output)
    assert not (output / ZIP).exists() and len(predicted) == 3
    monkeypatch.setattr(submission, "write_atomically", write)
    kept, broken = sorted((output / FOLDER).iterdir())
    broken.write_bytes(broken.read_bytes()[:60])
    age = kept.stat().st_mtime_ns
    path = submission.write(world / "run", output)
    assert len(predicted) == 5 and kept.stat().st_mtime_ns == age
    assert path.read_bytes() == (written[0] / ZIP).read_bytes()
    submission.write(world / "run", output)
    assert len(predicted) == 5


def test_other_predictions_are_not_mixed_in(world, written, tmp_path):
    output = shutil.copytree(written[0], tmp_path / "out")
    other = write_run(tmp_path / "other", runs.read_config(world / "run"), seed=4)
    with pytest.raises(UserError, match=r"differs in weights\): give another folder"):
        submission.write(other, output)
    with pytest.raises(UserError, match=r"differs in split\)"):
        submission.write(world / "run", output, split="val")
    (output / ABOUT).unlink()
    with pytest.raises(UserError, match="differs in everything"):
        submission.write(world / "run", output)
    with pytest.raises(UserError, match="is a file: give a folder"):
        submission.write(world / "run", output / ZIP)


def test_validation_images_are_a_rehearsal(world, tmp_path, capsys):
    command = [f"--workdir={world / 'run'}", f"--output={tmp_path}", "--split=val"]
    submission.main([*command, "--checkpoint=latest"])
    assert "hand it in" not in capsys.readouterr().out
    assert len(list((tmp_path / FOLDER).iterdir())) == 1
    assert submission.check(tmp_path / ZIP, "acdc", split="val") == []
    assert "of 1 images instead of 3" in submission.check(tmp_path, "acdc")[0]


def test_dark_zurich_and_its_own_images(world, tmp_path, capsys):
    config = runs.read_config(world / "run")
    # IntraDA's second stage: a manifest, tested on the benchmark's own images.
    config.target = ConfigDict(dict(reader="manifest", root="hard.jsonl"))
    config.test.reader, config.test.root = "dark_zurich", str(tmp_path / "dark_zurich")
    run = write_run(tmp_path / "run", config)
    folder = tmp_path / "dark_zurich/rgb_anon/test/night/GOPR0364"
    for seed in range(3):
        write_image(folder / f"GOPR0364_frame_00000{seed}_rgb_anon.png", seed)
    path = submission.write(run, tmp_path / "out")
    command = [f"--check={path}", "--server=dark_zurich"]
    submission.main([*command, f"--images={tmp_path / 'dark_zurich'}"])
    submission.main([*command, f"--images={folder}"])  # the split's images alone
    assert capsys.readouterr().out.count("is well") == 2
    with pytest.raises(UserError, match=r"manifest, dark_zurich\) does not tell"):
        submission.write(run, tmp_path / "acdc", server="acdc")
    other = submission.write(
        run, tmp_path / "acdc", server="acdc", images=world / "acdc"
    )
    assert submission.check(other, "acdc", names=NAMES) == []


def test_wrong_images_are_said_before_anything_is_written(world, tmp_path):
    root = shutil.copytree(world / "acdc", tmp_path / "acdc")
    write = lambda: submission.write(world / "run", tmp_path / "out", images=root)
    image = root / "rgb_anon" / TEST[0] / NAMES[0]
    write_image(image, 0, size=(16, 32))
    with pytest.raises(UserError, match="is 16 x 32, but must be 32 x 48"):
        write()
    image.unlink()
    with pytest.raises(UserError, match="has 2 images of split test instead of 3"):
        write()
    with pytest.raises(UserError, match='server "acdq" is unknown'):
        submission.split_images(root, "acdq", "test")
    assert not (tmp_path / "out" / FOLDER).exists()


def turned_rows():
    """The 19 classes of Cityscapes from bicycle to road."""
    colors = SPACE.colors.tolist()
    rows = zip(range(19), SPACE.classes, map(tuple, colors), strict=True)
    return tuple(reversed(list(rows)))


def test_label_spaces_of_the_19_classes():
    np.testing.assert_array_equal(submission.train_ids(SPACE)[:19], range(19))
    rows = turned_rows()
    turned = submission.train_ids(own_label_space("turned", rows))
    np.testing.assert_array_equal(turned[:19], range(18, -1, -1))
    with pytest.raises(
        UserError, match=r'"cityscapes16" differs in terrain, train, tr'
    ):
        submission.train_ids(LABEL_SPACES["cityscapes16"])
    with pytest.raises(UserError, match="differs in meadow from cityscapes19"):
        more = (*rows, (99, "meadow", (1, 2, 3)))
        submission.train_ids(own_label_space("more", more))


def test_network_with_the_classes_in_another_order(world, written, tmp_path):
    config = runs.read_config(world / "run")
    config.label_space, config.classes = "turned", turned_rows()
    run = write_run(tmp_path / "run", config)
    submission.write(run, tmp_path / "out")
    for name in NAMES:
        same, ids = (
            np.asarray(Image.open(folder / FOLDER / name))
            for folder in (written[0], tmp_path / "out")
        )
        np.testing.assert_array_equal(ids, 18 - same)


def test_run_of_other_classes_is_refused(tiny, tmp_path):
    config = tiny()
    runs.open_workdir(tmp_path / "run", config)
    with pytest.raises(UserError, match='"crosscity13" differs in fence, pole'):
        submission.write(tmp_path / "run", tmp_path / "out")
    config.label_space = "cityscapes19"
    runs.open_workdir(tmp_path / "nineteen", config)
    with pytest.raises(UserError, match=r"\(crosscity\) does not tell what to predict"):
        submission.write(tmp_path / "nineteen", tmp_path / "out")


# --- checking


def png(pixels, mode=None, **options):
    stream = io.BytesIO()
    image = Image.fromarray(pixels)
    (image.convert(mode) if mode else image).save(stream, "PNG", **options)
    return stream.getvalue()


IDS = np.arange(SIZE[0] * SIZE[1], dtype=np.uint8).reshape(SIZE) % 19


def few_colors():
    image = Image.fromarray(IDS % 4)
    image.putpalette(SPACE.colors[:4].tobytes())
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


CONTENTS = {
    "ids 255, but only the train ids 0 to 18": png(
        np.where(IDS, IDS, 255).astype("u1")
    ),
    "ids 19, 23, but only": png(np.choose(IDS % 3, (0, 19, 23)).astype("u1")),
    "24 x 32, mode L of 8 bits, but must be 32 x 48": png(IDS[:24, :32]),
    "48 x 32, mode L": png(np.ascontiguousarray(IDS.T)),
    "mode RGB of 8 bits": png(SPACE.colors[IDS]),
    "mode LA": png(IDS, "LA"),
    "mode I;16 of 16 bits": png(IDS.astype(np.uint16)),
    "mode P of 2 bits": few_colors(),
    "mode 1 of 1 bits": png(IDS, "1"),
    "is no PNG file or a damaged one": b"no picture",
    "damaged one (image file is truncated": png(IDS)[:-40],
    "damaged one (cannot identify": png(IDS).replace(b"PNG", b"GIF"),
}


@pytest.mark.parametrize("words", CONTENTS)
def test_wrong_pictures(words):
    mistake = submission.picture_mistake(CONTENTS[words], SIZE)
    assert words in mistake and ": " in mistake


def test_grey_and_palette_pictures_are_well():
    assert submission.picture_mistake(png(IDS), SIZE) == ""
    palette = png(IDS, "P", bits=8)
    assert submission.picture_mistake(palette, SIZE) == ""


def pack(path, entries):
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in entries:
            archive.writestr(name, data)
    return path


GOOD = [(f"{FOLDER}/{name}", png(IDS)) for name in NAMES]
LAYOUTS = {
    "__MACOSX/._x lies elsewhere": [*GOOD, ("__MACOSX/._x", b"")],
    "README.txt lies elsewhere": [*GOOD, ("README.txt", b"")],
    "acdc/ lies elsewhere": [*GOOD, ("acdc/", b"")],
    f"/{FOLDER}/x.png lies elsewhere": [*GOOD, (f"/{FOLDER}/x.png", png(IDS))],
    f"../{FOLDER}/x.png lies elsewhere": [*GOOD, (f"../{FOLDER}/x.png", png(IDS))],
    f"{FOLDER}/../x.png lies elsewhere": [*GOOD, (f"{FOLDER}/../x.png", png(IDS))],
    f"{FOLDER}/fog/x.png lies elsewhere": [*GOOD, (f"{FOLDER}/fog/x.png", png(IDS))],
    f"{FOLDER}\\x.png lies elsewhere": [*GOOD, (f"{FOLDER}\\x.png", png(IDS))],
    f"{NAMES[1]} is there twice": [*GOOD, GOOD[1]],
    f"{FOLDER}/.. is named like no image": [*GOOD, (f"{FOLDER}/..", png(IDS))],
    ".DS_Store is named like no image": [*GOOD, (f"{FOLDER}/.DS_Store", b"")],
}


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("words", LAYOUTS)
@pytest.mark.parametrize("names", [(), NAMES], ids=["form", "names"])
def test_wrong_layouts(words, names, tmp_path):
    path = pack(tmp_path / "x.zip", LAYOUTS[words])
    (mistake,) = submission.check(path, "acdc", names=names)
    assert words in mistake and mistake.endswith(".") and ": " in mistake


def test_folders_own_entry_is_well(tmp_path):
    path = pack(tmp_path / "x.zip", [(f"{FOLDER}/", b""), *GOOD])
    assert submission.check(path, "acdc", names=NAMES) == []


def test_wrong_names(tmp_path):
    (first, data), *rest = GOOD
    renamed = first.replace("_rgb_anon", "_gt_labelTrainIds")
    path = pack(tmp_path / "x.zip", [*rest, (renamed, data)])
    by_form = submission.check(path, "acdc")
    assert len(by_form) == 2
    assert f"{renamed} is named like no image of ACDC's split test" in by_form[0]
    assert "holds predictions of 2 images instead of 3" in by_form[1]
    by_name = submission.check(path, "acdc", names=NAMES)
    assert by_name[0] == by_form[0] and f"{first} is missing" in by_name[1]
    # A name of the right form that no image has.
    path = pack(tmp_path / "y.zip", [*rest, (first.replace("0161", "0162"), data)])
    assert submission.check(path, "acdc") == []
    assert len(submission.check(path, "acdc", names=NAMES)) == 2


@pytest.mark.parametrize("name", NAMES)
def test_names_of_every_camera_file_have_the_form(name):
    for server in SERVERS.values():
        assert re.fullmatch(server.names, name)
        assert not re.fullmatch(server.names, name.replace("rgb_", "rgb_ref_"))


def test_damaged_and_locked_zips(tmp_path):
    path = pack(tmp_path / "x.zip", GOOD)
    data = path.read_bytes()
    for part in (data[:-30], b"no zip", b""):
        path.write_bytes(part)
        (mistake,) = submission.check(path, "acdc")
        assert "is no zip or is damaged" in mistake
    place = data.index(b"IDAT") + 8
    path.write_bytes(data[:place] + b"\xff" + data[place + 1 :])
    (mistake,) = submission.check(path, "acdc")
    assert f"{GOOD[0][0]} is damaged or locked (Bad CRC-32" in mistake
    locked = bytearray(data)
    locked[6] |= 1  # of the first file's header, and of the directory's
    locked[data.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(locked)
    (mistake,) = submission.check(path, "acdc")
    assert f"{GOOD[0][0]} is damaged or locked" in mistake and "password" in mistake


def test_folders_are_checked_too(written, tmp_path):
    folder = copied(written, tmp_path)
    (folder / "notes.txt").write_text("beside it, so not packed")
    assert submission.check(folder, "acdc", names=NAMES) == []
    (folder / FOLDER / "more").mkdir()
    shutil.copy(folder / FOLDER / NAMES[0], folder / FOLDER / "more" / NAMES[0])
    (folder / FOLDER / NAMES[1]).write_bytes(png(SPACE.colors[IDS]))
    mistakes = submission.check(folder, "acdc", names=NAMES)
    assert [m.split()[0] for m in mistakes] == [
        f"{FOLDER}/{NAMES[1]}", f"{FOLDER}/more/{NAMES[0]}"
    ]  # fmt: skip
    shutil.rmtree(folder / FOLDER)
    (mistake,) = submission.check(folder, "acdc")
    assert "holds predictions of 0 images instead of 3" in mistake


def test_three_mistakes_are_shown_and_the_rest_counted(tmp_path):
    path = pack(tmp_path / "x.zip", [(f"{i}.txt", b"") for i in range(4)])
    with pytest.raises(UserError) as raised:
        submission.main([f"--check={path}", "--server=acdc"])
    lines = str(raised.value).splitlines()
    assert lines[0] == f"{path} cannot be handed in:" and len(lines) == 5
    assert lines[1].startswith("  0.txt lies") and lines[4] == "  and 2 more."
    submission.refuse(path, [])


def test_own_zip_that_fails_its_check_is_not_there(world, tmp_path, monkeypatch):
    monkeypatch.setattr(submission, "check", lambda *a, **k: ["It is wrong: mend it."])
    with pytest.raises(UserError, match="cannot be handed in"):
        submission.write(world / "run", tmp_path / "out")
    assert {p.name for p in (tmp_path / "out").iterdir()} == {ABOUT, FOLDER}


def test_published_numbers(monkeypatch):
    monkeypatch.undo()
    for name, server in SERVERS.items():
        assert server.size == (1080, 1920) and server.url.startswith("https://")
        for split, count in server.counts.items():
            row = {"reader": name, "root": "x", "split": split}
            assert expected(row).counts == (count,)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--workdir=x"], "--workdir needs --output"),
        (["--check=x"], "--check needs --server, one of acdc, dark_zurich"),
        (["--check=x", "--server=acdc", "--output=y"], "are of --workdir"),
        (["--check=x", "--server=acdc", "--checkpoint=best"], "are of --workdir"),
        (["--check=none.zip", "--server=acdc"], "none.zip does not exist"),
    ],
)
def test_options_that_do_not_go_together(arguments, words):
    with pytest.raises(UserError, match=words):
        submission.main(arguments)


def test_program_ends_with_code_2_and_no_traceback(tmp_path):
    command = [sys.executable, "-m", "uda_jax.submission", "--server=acdc"]
    command += [f"--check={pack(tmp_path / 'x.zip', GOOD)}"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "is 32 x 48, mode L of 8 bits, but must be 1080 x 1920" in done.stderr
