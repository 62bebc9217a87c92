"""The converter: there and back for every network, and every mistake a sentence."""

import hashlib
import json
import os
from pathlib import Path

import jax
import numpy as np
import pytest

from uda_jax import convert, torch_files
from uda_jax.convert_command import main
from uda_jax.errors import UserError
from uda_jax.factories import build, keywords
from uda_jax.weights import NETWORKS, load_weights_file

# What each network is converted as.
ROWS = {
    "bisenet": [{"form": "tufl"}, {"form": "ss_ada"}, {"aux_heads": False}],
    "deeplabv2": [
        {"backbone": "resnet18", "branches": 2},
        {"backbone": "resnet50", "branches": 4, "multi_level": False},
        {"backbone": "resnet50", "form": "mmseg", "branches": 2},
        {"backbone": "resnet18", "form": "mmseg", "branches": 4},
    ],
    "daformer": [{"backbone": "mit_b0"}],
    "segformer": [
        {"backbone": "mit_b0", "channels": 256},
        {"backbone": "mit_b2", "channels": 768},
    ],
    "discriminator": [{"naming": "advent"}, {"naming": "adaptsegnet"}],
}


def rows():
    for name in NETWORKS:
        for options in ROWS.get(name, []):
            small = {"width": 0.25} if "width" in keywords(NETWORKS[name]) else {}
            yield {"name": name, **small, **options}


def network(row, num_classes=5):
    """(model, params, batch_stats) with a different number in every place."""
    model = build(NETWORKS, "model", row, num_classes)
    rng = np.random.default_rng(0)

    def fill(leaf):  # positive variances, and logits that stay small
        value = rng.uniform(0.5, 1, leaf.shape) / np.prod(leaf.shape[:-1])
        return value.astype(np.float32)

    shapes = jax.eval_shape(model.init, jax.random.key(0))
    return model, *jax.tree.map(fill, shapes)


def equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.mark.parametrize(
    "row", rows(), ids=lambda row: " ".join(map(str, row.values()))
)
def test_there_and_back_is_the_identity(row, tmp_path):
    model, params, stats = network(row)
    tensors = convert.to_torch(params, stats, model.torch.to_torch)
    assert len(tensors) == len(jax.tree.leaves((params, stats)))
    back = convert.from_torch(tensors, model.torch.to_flax, params, stats)
    equal((params, stats), back)
    # The same through a file, which is recognised with all that its names show.
    path = torch_files.write(tmp_path / "x.pth", tensors)
    hidden = "branches" in row and row.get("form") != "mmseg"
    asked = {"branches": row["branches"]} if hidden else {}
    found = load_weights_file(path, **asked)
    equal((params, stats), (found.params, found.batch_stats))
    assert found.name == row["name"] and found.num_classes == 5 and not found.initial
    assert {"name": found.name, **found.options}.items() >= row.items()


def test_every_network_is_in_the_sweep():
    assert ROWS.keys() == NETWORKS.keys()


TINY = {"name": "bisenet", "form": "tufl", "width": 0.125}


@pytest.fixture(scope="module")
def tensors():
    model, params, stats = network(TINY, 13)
    return convert.to_torch(params, stats, model.torch.to_torch)


@pytest.fixture
def source(tensors, tmp_path):
    """A checkpoint with counters, in a folder of its own."""
    counter = {"sp.conv1.bn.num_batches_tracked": np.array(9)}
    return torch_files.write(tmp_path / "in" / "tufl.pth", {**tensors, **counter})


def test_the_command_there_and_back(source, tensors, tmp_path, capsys):
    output, again = tmp_path / "x.safetensors", tmp_path / "again.pth"
    main([str(source), str(output), "--label_space=crosscity13"])
    text = capsys.readouterr().out
    assert "left out, counters of BatchNorm: 1 (sp.conv1.bn.num_batches_" in text
    assert "self-check: logits [1, 64, 128, 13]" in text
    count = sum(t.size for t in tensors.values())
    last = text.splitlines()[-1]
    assert f"{len(tensors)} tensors, {count:,} numbers, 1 left out, 0 new" in last
    known = json.loads(output.with_suffix(".json").read_text())
    assert known["model"] == {
        **{"name": "bisenet", "form": "tufl", "width": 0.125},
        **{"backbone": "resnet18", "aux_heads": True},
    }
    assert known["num_classes"] == 13 and known["label_space"] == "crosscity13"
    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    assert known["source"] == {"name": "tufl.pth", "sha256": digest}
    assert known["kind"] == "TUFL's BiSeNet"
    assert known["dropped"] == {
        "counters of BatchNorm": ["sp.conv1.bn.num_batches_tracked"]
    }

    main([str(output), str(again), "--counters"])
    checks = [line for line in text.splitlines() if line.startswith("self-check")]
    assert checks[0] in capsys.readouterr().out  # the same logits
    saved = torch_files.read(again)
    norms = [name for name in tensors if name.endswith("running_var")]
    assert len(saved) == len(tensors) + len(norms)
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(saved[name], tensor)
    for name in norms:
        counter = saved[name.replace("running_var", "num_batches_tracked")]
        assert counter.shape == () and counter.dtype == np.int64


def without(tensors, name):
    return {k: v for k, v in tensors.items() if k != name}


def changed(tensors, name, value):
    return {**tensors, name: np.float32(value(tensors[name]))}


def with_nan(tensor):
    tensor = tensor.copy()
    tensor.flat[3] = np.nan
    return tensor


HEAD, NORM = "conv_out.conv_out.weight", "sp.conv1.bn.weight"
BAD = {
    "renamed": (
        lambda t: {**without(t, NORM), "sp.conv1.bn.wieght": t[NORM]},
        (),
        ("sp.conv1.bn.wieght", "params/sp/conv1/bn/scale"),
    ),
    "missing": (lambda t: without(t, NORM), (), ("params/sp/conv1/bn/scale",)),
    "added": (lambda t: {**t, "extra.weight": t[NORM]}, (), ("extra.weight",)),
    "other shape": (
        lambda t: changed(t, NORM, lambda x: x[:-1]),
        (),
        (f"{NORM} (7,)", "params/sp/conv1/bn/scale [8]"),
    ),
    "NaN": (
        lambda t: changed(t, NORM, with_nan),
        (),
        (NORM, "1 NaN or infinite number"),
    ),
    "twice": (
        lambda t: {
            **t,
            "cp.resnet.layer2.0.downsample.0.weight": t[
                "cp.resnet.layer2.0.downsample_conv.weight"
            ],
        },
        (),
        ("downsample.0.weight", "downsample_conv.weight", "both mean"),
    ),
    "whole numbers": (
        lambda t: {**t, NORM: np.arange(8)},
        (),
        (f"{NORM} is int64",),
    ),
    "another network": (
        dict,
        ("--model=deeplabv2",),
        ("TUFL's BiSeNet", "for bisenet", "--model=deeplabv2"),
    ),
    "unknown network": (dict, ("--model=bisnet",), ('did you mean "bisenet"',)),
    "another form": (dict, ("--form=ss_ada",), ("ffm.conv1.weight", "params/ffm/bn")),
    "other classes": (dict, ("--num_classes=19",), ("13 classes", "19")),
    "other label space": (dict, ("--label_space=camvid11",), ("13 classes", "11")),
    "unknown label space": (dict, ("--label_space=city",), ('"city" is unknown',)),
    "negative classes": (dict, ("--num_classes=-3",), ("num_classes=-3",)),
    "path": (dict, ("--path=1",), ('no option "path"',)),
    "name": (dict, ("--name=deeplabv2",), ('no option "name"',)),
    "how it is run": (dict, ("--compute_dtype=bfloat16",), ("--compute_dtype", "run")),
    "unknown option": (dict, ("--wdith=1.0",), ("wdith", 'did you mean "width"')),
    "no option": (dict, ("width",), ('"width" is no option',)),
    "no copies": (dict, ("--copy=teacher",), ("teacher", "one network")),
    "no kind": (
        lambda t: {f"net.{k}": v for k, v in t.items()},
        (),
        ("net.conv_out.", "no known kind", "SS-ADA's BiSeNet"),
    ),
    "not finite": (
        lambda t: {
            n: x * np.float32(1e20) if "weight" in n else x for n, x in t.items()
        },
        (),
        ("logits that are not finite",),
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_file_is_a_sentence_and_leaves_nothing(tensors, tmp_path, case):
    change, options, words = BAD[case]
    source = torch_files.write(tmp_path / "in" / "x.pth", change(tensors))
    with pytest.raises(UserError) as error:
        main([str(source), str(tmp_path / "out" / "y.safetensors"), *options])
    text = str(error.value)
    assert "\n" not in text and len(text) < 900
    for word in words:
        assert word in text, text
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("damage", ["cut", "hostile"])
def test_an_unreadable_file_leaves_nothing(source, tmp_path, damage):
    if damage == "cut":
        source.write_bytes(source.read_bytes()[:-1000])
    else:
        attack = b"cposix\nsystem\n(X\x08\x00\x00\x00touch me\x85R."
        source.write_bytes(b"\x80\x02" + attack)
    with pytest.raises(UserError, match="truncated" if damage == "cut" else "posix"):
        main([str(source), str(tmp_path / "out" / "y.safetensors")])
    assert not (tmp_path / "out").exists() and not Path("me").exists()


def test_outputs_are_never_overwritten(source, tmp_path):
    for name, taken, word in (
        ("y.safetensors", "y.safetensors", "exists already"),
        ("y.safetensors", "y.json", "y.json exists already"),
        ("y.pth", "y.pth", "exists already"),
        ("y.npz", "", "must end in"),
    ):
        if taken:
            (tmp_path / taken).write_text("mine")
        else:
            (tmp_path / "dangling.pth").symlink_to(tmp_path / "nothing")
        with pytest.raises(UserError, match=word):
            main([str(source), str(tmp_path / name)])
        if taken:
            assert (tmp_path / taken).read_text() == "mine"
            (tmp_path / taken).unlink()
    for name, word in (
        ("dangling.pth", "exists already"),
        ("dangling.pth/y.pth", "is no folder"),
        ("in/tufl.pth/deep/y.safetensors", "is no folder"),
    ):
        with pytest.raises(UserError, match=word):
            main(["/no/file", str(tmp_path / name)])


def test_a_file_that_cannot_be_written_leaves_nothing(source, tmp_path, monkeypatch):
    monkeypatch.setattr("uda_jax.convert_command.self_check", lambda *_: "")

    def full(*arguments, **options):
        raise OSError("no space left")

    for writer, name in (
        ("uda_jax.weights.save_file", "y.safetensors"),
        ("uda_jax.weights.json.dumps", "y.safetensors"),
        ("uda_jax.torch_files.state_dict_pickle", "y.pth"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(writer, full)
            with pytest.raises(UserError, match=r"cannot be written \(no space left\)"):
                main([str(source), str(tmp_path / "out" / name)])
        assert not list((tmp_path / "out").glob("*"))
        assert not list((tmp_path / "out").glob(".*"))


def test_both_files_or_neither(source, tmp_path, monkeypatch):
    monkeypatch.setattr("uda_jax.convert_command.self_check", lambda *_: "")
    output = tmp_path / "out" / "y.safetensors"
    replace = os.replace

    def stopped(old, new):
        replace(old, new)
        if Path(new).suffix == ".json":
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("os.replace", stopped)
        with pytest.raises(KeyboardInterrupt):
            main([str(source), str(output)])
    assert not list((tmp_path / "out").iterdir())
    main([str(source), str(output)])
    modes = {file.stat().st_mode & 0o777 for file in (tmp_path / "out").iterdir()}
    mask = os.umask(0)
    os.umask(mask)
    assert modes == {0o666 & ~mask}


@pytest.mark.parametrize("form", ["tufl", "ss_ada"])
def test_pytorch_finds_the_original_names_and_shapes(tmp_path, form):
    torch = pytest.importorskip("torch")
    names = {"tufl": "tufl", "ss_ada": "ssada"}[form]
    classes = {"tufl": 13, "ss_ada": 7}[form]
    keys = Path(__file__).parent / f"goldens/{names}_bisenet_keys.txt"
    published = dict(line.split("\t") for line in keys.read_text().splitlines())
    model, params, stats = network({"name": "bisenet", "form": form}, classes)
    from uda_jax.convert_command import with_counters

    tensors = convert.to_torch(params, stats, model.torch.to_torch)
    path = torch_files.write(tmp_path / "x.pth", with_counters(tensors))
    saved = torch.load(path, weights_only=True)
    shapes = {name: str(tuple(tensor.shape)) for name, tensor in saved.items()}
    counters = [n for n in shapes if n.endswith("num_batches_tracked")]
    if not any(n.endswith("num_batches_tracked") for n in published):
        shapes = {n: s for n, s in shapes.items() if n not in counters}
    assert shapes == published


@pytest.mark.parametrize(
    "row", rows(), ids=lambda row: " ".join(map(str, row.values()))
)
def test_pytorch_reads_every_network(row, tmp_path, monkeypatch):
    torch = pytest.importorskip("torch")
    monkeypatch.setattr("uda_jax.convert_command.self_check", lambda *_: "")
    model, params, stats = network(row)
    tensors = convert.to_torch(params, stats, model.torch.to_torch)
    torch.save({n: torch.from_numpy(t) for n, t in tensors.items()}, tmp_path / "x.pth")
    hidden = "branches" in row and row.get("form") != "mmseg"
    asked = [f"--branches={row['branches']}"] if hidden else []
    main([str(tmp_path / "x.pth"), str(tmp_path / "x.safetensors"), *asked])
    main([str(tmp_path / "x.safetensors"), str(tmp_path / "again.pth")])
    saved = torch.load(tmp_path / "again.pth", weights_only=True)
    assert saved.keys() == tensors.keys()
    for name, tensor in saved.items():
        np.testing.assert_array_equal(tensor.numpy(), tensors[name])
