"""A network from any file: to be called, to start a training from, to be kept."""

import json
import subprocess
import sys
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import shrink

import uda_jax
from uda_jax import convert, torch_files, weight_sources, weights
from uda_jax.augment import normalize
from uda_jax.benchmarks import base_config
from uda_jax.checkpoints import Checkpoints
from uda_jax.convert_command import main
from uda_jax.errors import UserError
from uda_jax.labels import LABEL_SPACES, own_label_space
from uda_jax.models import create_model
from uda_jax.runs import load_weights, open_workdir

TINY = {"form": "tufl", "width": 0.125}


@cache
def network(name, num_classes, seed=0, **options):
    model = create_model(name, num_classes, **options)
    return model, *model.init(jax.random.key(seed))


def equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.fixture(scope="module")
def tufl():
    return network("bisenet", 13, **TINY)


@pytest.fixture(scope="module")
def torch_file(tufl, tmp_path_factory):
    """The original's file of that network."""
    model, params, stats = tufl
    tensors = convert.to_torch(params, stats, model.torch.to_torch)
    return torch_files.write(tmp_path_factory.mktemp("torch") / "tufl.pth", tensors)


@pytest.fixture(scope="module")
def converted(torch_file):
    path = torch_file.with_suffix(".safetensors")
    found = weights.load_weights_file(torch_file, label_space="crosscity13")
    weights.save(path, found, torch_file)
    return path


@pytest.fixture(scope="module")
def workdir(tufl, tmp_path_factory):
    """What a run of this network leaves behind."""
    config = shrink(base_config("minicity"))
    path = tmp_path_factory.mktemp("runs") / "run"
    open_workdir(path, config)
    checkpoints = Checkpoints(path / "checkpoints")
    _, params, stats = tufl
    state = {
        "params": {"segmentor": params},
        "batch_stats": stats,
        "step": jnp.int32(3),
    }
    checkpoints.save(3, state)
    checkpoints.close()
    return path


IMAGES = np.random.default_rng(0).integers(0, 256, (2, 40, 56, 3), np.uint8)


@pytest.mark.parametrize("origin", ["torch_file", "converted", "workdir"])
def test_load_model(request, tufl, origin):
    loaded = uda_jax.load_model(request.getfixturevalue(origin))
    _, params, stats = tufl
    equal((loaded.params, loaded.batch_stats), (params, stats))
    assert loaded.num_classes == 13
    if origin == "torch_file":
        assert loaded.label_space is None
    else:
        assert loaded.label_space.classes[0] == "road"


def test_a_loaded_model_normalises_and_predicts(tufl, converted):
    loaded = uda_jax.load_model(converted)
    prediction = loaded(IMAGES)
    model, params, stats = tufl
    forward = jax.jit(lambda x: model.forward(params, stats, x, train=False)[0])
    expected = forward(normalize(IMAGES))
    assert prediction.logits.shape == (2, 40, 56, 13)
    np.testing.assert_allclose(prediction.logits, expected.logits, atol=1e-5)
    for wrong in (IMAGES[0], IMAGES.astype(np.float32), IMAGES[..., :2]):
        with pytest.raises(UserError, match=r"uint8 \[B, H, W, 3\]"):
            loaded(wrong)


def test_importing_the_package_is_light():
    program = (
        "import sys, uda_jax; uda_jax.__version__; assert 'jax' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
    with pytest.raises(AttributeError, match="load_modle"):
        uda_jax.load_modle


def test_a_workdir_becomes_the_originals_file(
    workdir, torch_file, tmp_path, monkeypatch
):
    main([str(workdir), str(tmp_path / "x.pth")])
    saved, original = (torch_files.read(p) for p in (tmp_path / "x.pth", torch_file))
    equal(saved, original)
    # Looked at above; a second time it would compile the network again.
    monkeypatch.setattr("uda_jax.convert_command.self_check", lambda *_: "")
    main([str(workdir), str(tmp_path / "x.safetensors")])
    known = json.loads((tmp_path / "x.json").read_text())
    assert known["source"] == {"name": "run", "step": 3}
    assert known["label_space"] == "crosscity13"


def test_branches_must_be_told(tmp_path):
    options = {"backbone": "resnet18", "width": 0.125}
    model, params, stats = network("deeplabv2", 5, **options, branches=2)
    tensors = convert.to_torch(params, stats, model.torch.to_torch)
    path = torch_files.write(tmp_path / "x.pth", tensors)
    with pytest.raises(UserError, match=r"--branches=2 for MaxSquare and AdaptSegNet"):
        weights.load_weights_file(path)
    found = weights.load_weights_file(path, branches=2)
    assert found.options["branches"] == 2 and found.model.frozen == model.frozen
    equal(found.params, params)
    # A converted file says it itself.
    weights.save(tmp_path / "x.safetensors", found, path)
    again = weights.load_weights_file(tmp_path / "x.safetensors")
    assert again.options == found.options and again.model.frozen == model.frozen
    for wrong in ({"branches": 4}, {"copy": "teacher"}):
        with pytest.raises(UserError, match=r"branches=2, and|one network alone"):
            weights.load_weights_file(tmp_path / "x.safetensors", **wrong)
    # To start a training from it nobody needs to know.
    _, params, stats = network("deeplabv2", 5, seed=1, **options, branches=4)
    equal(load_weights(str(path), params, stats)[0], found.params)


@pytest.fixture(scope="module")
def two_branches(tmp_path_factory):
    """(a DeepLabV2 that sums two branches as .pth and converted, its row)."""
    row = {"name": "deeplabv2", "backbone": "resnet18", "width": 0.125}
    model, params, stats = network(**row, num_classes=13, branches=2)
    path = tmp_path_factory.mktemp("two") / "x.pth"
    torch_files.write(path, convert.to_torch(params, stats, model.torch.to_torch))
    found = weights.load_weights_file(
        path, branches=2, label_space="crosscity13", compute_dtype="bfloat16"
    )
    weights.save(path.with_suffix(".safetensors"), found, path)
    return path, row, (params, stats)


def test_the_config_must_say_what_the_file_says(two_branches):
    path, row, own = two_branches
    converted = str(path.with_suffix(".safetensors"))
    # None is the form's: four branches, BGR for the original one.
    same = {**row, "branches": 2, "input_form": "caffe_bgr", "affine": "trained"}
    space = {"label_space": LABEL_SPACES["crosscity13"]}
    equal(load_weights(converted, *own, row=same, **space)[:2], own)
    for row_here, space_here, words in (
        (row, "crosscity13", r"branches=2 where config\.model\.branches is 4"),
        ({**same, "input_form": "imagenet"}, None, "input_form=caffe_bgr where"),
        (same, "camvid11", r"crosscity13 where config\.label_space is camvid11"),
    ):
        given = {"row": row_here, "label_space": LABEL_SPACES.get(space_here)}
        with pytest.raises(UserError, match=words):
            load_weights(converted, *own, **given)
        if "input_form" in words:
            with pytest.raises(UserError, match=words):
                load_weights(converted, *own, **given, new_heads=True)
        else:
            load_weights(converted, *own, **given, new_heads=True)
    # A raw file cannot know its branches: the config's count, and the log says so.
    line = load_weights(str(path), *own, row=row, **space)[2]
    assert line.endswith("; branches=4 as the config says, the file does not")
    known = json.loads(path.with_suffix(".json").read_text())
    assert "compute_dtype" not in known["model"] and known["model"]["branches"] == 2


def test_a_workdir_of_the_same_network_and_one_of_another(workdir, tufl):
    row = dict(shrink(base_config("minicity")).model)
    own, other = LABEL_SPACES["crosscity13"], LABEL_SPACES["camvid11"]
    load_weights(str(workdir), *tufl[1:], row=row, label_space=own)
    with pytest.raises(UserError, match=r"crosscity13 where config\.label_space"):
        load_weights(str(workdir), *tufl[1:], row=row, label_space=other)


def test_classes_of_ones_own_are_compared_in_their_order():
    rows = ((1, "soil", (1, 1, 1)), (2, "crop", (2, 2, 2)))
    source = weight_sources.Source(
        "a run", "a run", ("bisenet",), {}, 2, "farm", {}, lambda network: (),
        settled=True, classes=rows,
    )  # fmt: skip
    same = lambda own: weight_sources.check_same(
        source, {"name": "bisenet"}, own_label_space("farm", own), new_heads=False
    )
    same(rows)
    with pytest.raises(UserError, match="classes soil, crop where the config's are"):
        same(rows[::-1])


def test_a_backbone_sees_what_it_was_trained_on(tmp_path):
    path, _ = torchvision(tmp_path)
    row = {"name": "deeplabv2", "backbone": "resnet18", "width": 0.125}
    _, *own = network(**row, num_classes=5)
    with pytest.raises(
        UserError, match=r"input_form=imagenet where config\.model\.inp"
    ):
        load_weights(str(path), *own, new_heads=True, row=row)
    row["input_form"] = "imagenet"
    load_weights(str(path), *own, new_heads=True, row=row)


# --- new heads ------------------------------------------------------------------------


def torchvision(tmp_path, num_classes=1000):
    """torchvision's ResNet-18 at an eighth of its width, with its classifier."""
    options = {"backbone": "resnet18", "width": 0.125}
    model, params, stats = network("deeplabv2", 2, seed=7, **options)
    tensors = convert.to_torch(params, stats, model.torch.to_torch)
    trunk = {n: t for n, t in tensors.items() if "conv2d_list" not in n}
    trunk["fc.weight"] = np.ones((num_classes, 64), np.float32)
    path = torch_files.write(tmp_path / "resnet18.pth", trunk)
    return path, params["backbone"]


def test_a_backbone_needs_new_heads(tmp_path):
    path, backbone = torchvision(tmp_path)
    row = {"model": "deeplabv2", "num_classes": 5, "width": 0.125}
    with pytest.raises(UserError, match=r"only a backbone.*--new_heads"):
        weights.load_weights_file(path, **row, branches=4)
    with pytest.raises(UserError, match="deeplabv2 or bisenet, and no --model"):
        weights.load_weights_file(path, new_heads=True)
    with pytest.raises(UserError, match="no number of classes"):
        weights.load_weights_file(path, model="deeplabv2", new_heads=True)
    found = weights.load_weights_file(path, **row, branches=4, new_heads=True, seed=3)
    equal(found.params["backbone"], backbone)
    assert found.options["input_form"] == "imagenet"
    assert found.dropped == {"classifier of ImageNet's classes": ["fc.weight"]}
    assert found.initial and all("head/branch_" in path for path in found.initial)
    head = found.model.init(jax.random.key(3))[0]["head"]
    equal(found.params["head"], head)


@pytest.mark.parametrize("name", ["deeplabv2", "bisenet"])
def test_a_backbone_starts_the_network_that_has_its_place(tmp_path, name):
    path, backbone = torchvision(tmp_path)
    options = {"backbone": "resnet18", "width": 0.125}
    _, params, stats = network(name, 5, **options)
    with pytest.raises(UserError, match="init_new_heads=True"):
        load_weights(str(path), params, stats)
    new, new_stats, line = load_weights(str(path), params, stats, new_heads=True)
    place = new["backbone"] if name == "deeplabv2" else new["cp"]["resnet"]
    equal(place, backbone)
    outside = {"deeplabv2": "head", "bisenet": "sp"}[name]
    equal(new[outside], params[outside])
    assert f"from {path} (torchvision's ResNet)" in line
    assert "left out: 1 (fc.weight) (classifier of ImageNet's classes)" in line
    count = len(jax.tree.leaves((params, stats))) - 100  # a ResNet-18 has 100 leaves
    assert f"initial values: {count} (params/" in line
    assert line.endswith("; made for input_form=imagenet")
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(new_stats))


def test_heads_of_another_class_count_only_when_asked(torch_file, tufl):
    _, trained, _ = tufl
    _, params, stats = network("bisenet", 19, seed=1, **TINY)
    words = r"another number of classes: conv_out.*13, 32.*\[1, 1, 32, 19\]"
    with pytest.raises(UserError, match=words):
        load_weights(str(torch_file), params, stats)
    new, _, line = load_weights(str(torch_file), params, stats, new_heads=True)
    equal(new["cp"], trained["cp"])
    equal(new["ffm"], trained["ffm"])
    for head in ("conv_out", "conv_out16", "conv_out32"):
        equal(new[head]["conv"], trained[head]["conv"])
        equal(new[head]["conv_out"], params[head]["conv_out"])
    assert "177 arrays of 180" in line
    assert "initial values: 3 (params/conv_out/conv_out/kernel, " in line
    assert "left out: 3 (conv_out.conv_out.weight, " in line


def test_a_backbone_must_be_whole(torch_file, tufl, tmp_path):
    _, params, stats = tufl
    tensors = dict(torch_files.read(torch_file))
    gone = tensors.pop("cp.resnet.layer2.0.bn1.weight")
    path = torch_files.write(tmp_path / "x.pth", tensors)
    with pytest.raises(UserError, match="lacks params/cp/resnet/layer2_0/bn1/scale"):
        load_weights(str(path), params, stats, new_heads=True)
    tensors["cp.resnet.layer2.0.bn1.weight"] = gone[:-1]
    path = torch_files.write(tmp_path / "y.pth", tensors)
    with pytest.raises(UserError, match=r"bn1\.weight \(15,\) there"):
        load_weights(str(path), params, stats, new_heads=True)


@pytest.mark.parametrize("new_heads", [False, True])
def test_another_network_is_refused(torch_file, new_heads):
    _, params, stats = network("segformer", 13, backbone="mit_b0", width=0.25)
    with pytest.raises(UserError) as error:
        load_weights(str(torch_file), params, stats, new_heads=new_heads)
    text = str(error.value)
    assert f"init_from={torch_file} (TUFL's BiSeNet) is of another network" in text
    assert "conv_out.conv.bn.bias" in text or new_heads
    assert "params/backbone/block1_0" in text or "cp.resnet.bn1.bias" in text


@pytest.mark.parametrize("origin", ["converted", "workdir"])
def test_training_starts_from_files_of_this_library(request, tufl, origin):
    path = request.getfixturevalue(origin)
    _, params, stats = network("bisenet", 13, seed=1, **TINY)
    new, new_stats, line = load_weights(str(path), params, stats)
    equal((new, new_stats), tufl[1:])
    assert f"180 arrays ({sum(x.size for x in jax.tree.leaves(tufl[1:])):,} num" in line
    assert f"from {path}" in line and ("step 3" in line) == (origin == "workdir")


def test_nothing_there_to_start_from(tmp_path, tufl):
    for path in (tmp_path, tmp_path / "none.pth"):
        with pytest.raises(UserError, match="neither a file nor the workdir of a run"):
            load_weights(str(path), *tufl[1:])


# --- the format -----------------------------------------------------------------------


def test_the_two_files_belong_together(converted, tufl, tmp_path):
    path = tmp_path / "x.safetensors"
    path.write_bytes(converted.read_bytes())
    with pytest.raises(UserError, match=r"needs x\.json beside it"):
        weights.load_weights_file(path)
    known = json.loads(converted.with_suffix(".json").read_text())
    for change in ({"pair": "another"}, {"format": "uda_jax weights 0"}):
        path.with_suffix(".json").write_text(json.dumps({**known, **change}))
        with pytest.raises(UserError, match="do not belong together"):
            weights.load_weights_file(path)
    for text in ("{", "[]", json.dumps({**known, "model": {}})):
        path.with_suffix(".json").write_text(text)
        with pytest.raises(UserError, match="cannot be used"):
            weights.load_weights_file(path)
    row = known["model"]
    for change, words in (
        ({"model": {**row, "name": "bisnet"}}, "'bisnet' is none of bisenet"),
        ({"model": {**row, "wdith": 1.0}}, 'did you mean "width"'),
        ({"num_classes": "13"}, "num_classes '13' is no number"),
        ({"num_classes": 0}, "num_classes 0 is no number"),
        ({"label_space": ["x"]}, r"label_space \['x'\] is no name"),
        ({"label_space": "city"}, '"city" is unknown'),
        ({"kind": "a\nb"}, "is no text"),
    ):
        path.with_suffix(".json").write_text(json.dumps({**known, **change}))
        for load in (weights.load_weights_file, lambda p: load_weights(p, *tufl[1:])):
            with pytest.raises(UserError, match=words) as error:
                load(path)
            assert "\n" not in str(error.value)
    stray = {"params/x": np.zeros(2, np.float32)}
    torch_files.write(tmp_path / "y.pth", stray)
    (tmp_path / "y.json").write_text(json.dumps(known))
    with pytest.raises(UserError, match="is no safetensors file"):
        weights.load_weights_file(tmp_path / "y.pth")
    # What people write into the JSON file themselves is taken.
    path.with_suffix(".json").write_text(json.dumps({**known, "label_space": ""}))
    assert weights.load_weights_file(path).label_space == ""


def test_a_discriminator_takes_no_images(tmp_path, capsys):
    model = weights.NETWORKS["discriminator"](4, naming="adaptsegnet")
    params, stats = model.init(jax.random.key(0))
    tensors = convert.to_torch(params, stats, model.torch.to_torch)
    path = torch_files.write(tmp_path / "D1.pth", tensors)
    main([str(path), str(tmp_path / "D1.safetensors")])
    assert "self-check: logits [1, 2, 4, 1]" in capsys.readouterr().out
    main([str(tmp_path / "D1.safetensors"), str(tmp_path / "again.pth")])
    equal(dict(torch_files.read(tmp_path / "again.pth")), tensors)
    with pytest.raises(UserError, match="discriminator takes probabilities"):
        uda_jax.load_model(tmp_path / "D1.safetensors")
