"""Every kind of known file, in its original names, and what is dropped from it."""

from collections import OrderedDict
from pathlib import Path

import jax
import numpy as np
import pytest

from uda_jax import convert
from uda_jax.checkpoint_kinds import KINDS
from uda_jax.errors import UserError
from uda_jax.factories import build
from uda_jax.models import mit
from uda_jax.recognise import COPIES, recognise
from uda_jax.weights import NETWORKS

GOLDENS = Path(__file__).parent / "goldens"
COUNTERS = "counters of BatchNorm"
BESIDE = "beside the network's weights"


def zeros(shape):
    """An array of any size that takes no memory."""
    return np.broadcast_to(np.float32(0), shape)


def published(form):
    """The tensors of a published BiSeNet."""
    text = (GOLDENS / f"{form}_bisenet_keys.txt").read_text()
    rows = (line.split("\t") for line in text.splitlines())
    parse = lambda shape: tuple(int(n) for n in shape.strip("()").split(",") if n)
    return {name: zeros(parse(shape.replace(" ", ""))) for name, shape in rows}


def counters(tensors):
    """InPlaceABN counts batches since version 1.1."""
    norms = [n for n in tensors if n.endswith("running_var")]
    return {n.replace("running_var", "num_batches_tracked"): zeros(()) for n in norms}


def original(name, num_classes=19, **options):
    """A network's tensors by the original's names."""
    model = build(NETWORKS, "model", {"name": name, **options}, num_classes)
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    leaves = jax.tree.map(lambda leaf: zeros(leaf.shape), shapes)
    return convert.to_torch(*leaves, model.torch.to_torch)


def prefixed(prefix, tensors):
    return {prefix + name: tensor for name, tensor in tensors.items()}


def backbone(tensors, prefix=""):
    """What ImageNet's file of a backbone holds, with its classifier of 1000 classes."""
    head = {"fc.weight": zeros((1000, 512)), "fc.bias": zeros((1000,))}
    kept = {n: t for n, t in tensors.items() if n.startswith(prefix)}
    return {n.removeprefix(prefix): t for n, t in kept.items()} | head


RESNET18 = {
    n: t
    for n, t in original("deeplabv2", backbone="resnet18").items()
    if "layer5" not in n
}
SMALL = {"backbone": "resnet50", "width": 0.125}
MMSEG = {"form": "mmseg", "branches": 4, **SMALL}
DAFORMER = original("daformer", backbone="mit_b0")
META = {"meta": {"mmseg_version": "0.16.0"}, "optimizer": {"state": {}}}


def self_training():
    copies = [prefixed(p, DAFORMER) for p in ("model.", "ema_model.", "imnet_model.")]
    return {**META, "state_dict": OrderedDict(copies[0] | copies[1] | copies[2])}


def scale_file():
    trunk = {n: t for n, t in RESNET18.items() if "conv2d_list" not in n}
    trunk["layer5.conv2d_list.0.weight"] = zeros((21, 2048, 3, 3))
    trunk["layer5.conv2d_list.0.bias"] = zeros((21,))
    return prefixed("Scale.", trunk)


def hugging_face(tensors, prefix="segformer.encoder."):
    """A bare Mix Transformer as Hugging Face names it: key and value apart."""
    new = {}
    for name, tensor in tensors.items():
        name = name.removeprefix("backbone.")
        for stage in "1234":
            own = str(int(stage) - 1)
            name = name.replace(
                f"patch_embed{stage}.norm", f"patch_embeddings.{own}.layer_norm"
            )
            name = name.replace(f"patch_embed{stage}.", f"patch_embeddings.{own}.")
            name = name.replace(f"block{stage}.", f"block.{own}.")
            if name.startswith(f"norm{stage}."):
                name = name.replace(f"norm{stage}.", f"layer_norm.{own}.")
        for theirs, ours in (
            ("attention.self.query", "attn.q"),
            ("attention.self.sr", "attn.sr"),
            ("attention.self.layer_norm", "attn.norm"),
            ("attention.output.dense", "attn.proj"),
            (".layer_norm_1", ".norm1"),
            (".layer_norm_2", ".norm2"),
            ("mlp.dense1", "mlp.fc1"),
            ("mlp.dense2", "mlp.fc2"),
        ):
            name = name.replace(ours, theirs)
        if "attn.kv" in name:
            key, value = np.split(tensor, 2)
            new[prefix + name.replace("attn.kv", "attention.self.key")] = key
            new[prefix + name.replace("attn.kv", "attention.self.value")] = value
        else:
            new[prefix + name] = tensor
    return new


ENCODER = {n: t for n, t in DAFORMER.items() if n.startswith("backbone.")}
BARE = {n.removeprefix("backbone."): t for n, t in ENCODER.items()}
IMAGENET = {"head.weight": zeros((1000, 256)), "head.bias": zeros((1000,))}
CLASSIFIER = {n.replace("head", "classifier"): t for n, t in IMAGENET.items()}
HEAD = "classifier of ImageNet's classes"

# (what is in the file, kind, options, classes, how many each rule drops)
FILES = {
    "TUFL": (
        published("tufl"),
        "TUFL's BiSeNet",
        {"backbone": "resnet18", "form": "tufl", "aux_heads": True},
        13,
        {},
    ),
    "TUFL with counters": (
        published("tufl") | counters(published("tufl")),
        "TUFL's BiSeNet",
        {"backbone": "resnet18", "form": "tufl", "aux_heads": True},
        13,
        {COUNTERS: 35},
    ),
    "SS-ADA": (
        {
            "model": OrderedDict(prefixed("module.", published("ssada"))),
            "optimizer": {"state": {}, "param_groups": []},
            "epoch": 199,
            "previous_best": np.float64(73.09),
        },
        "SS-ADA's BiSeNet",
        {"backbone": "resnet18", "form": "ss_ada", "aux_heads": True},
        7,
        {COUNTERS: 36, BESIDE: 3},
    ),
    "ADVENT": (
        original("deeplabv2", **SMALL, branches=4),
        "DeepLabV2 of MaxSquare, AdaptSegNet, ADVENT or IntraDA",
        {"form": "original", "multi_level": True, **SMALL},
        19,
        {},
    ),
    "MaxSquare": (
        {
            "epoch": 9,
            "iteration": 29749,
            "state_dict": prefixed("module.", original("deeplabv2", 13, **SMALL)),
            "optimizer": {},
            "best_MIou": 0.46,
        },
        "DeepLabV2 of MaxSquare, AdaptSegNet, ADVENT or IntraDA",
        {"form": "original", "multi_level": True, **SMALL},
        13,
        {BESIDE: 4},
    ),
    "DeepLab init": (
        scale_file(),
        "initial weights of DeepLabV2",
        {"backbone": "resnet18", "input_form": "caffe_bgr"},
        0,
        {"classifier of 21 classes on 2048 channels": 2},
    ),
    "mmseg": (
        {**META, "state_dict": original("deeplabv2", **MMSEG)},
        "DeepLabV2 of mmseg or DAFormer",
        MMSEG,
        19,
        {BESIDE: 2},
    ),
    "DAFormer": (
        {**META, "state_dict": DAFORMER},
        "DAFormer",
        {"backbone": "mit_b0"},
        19,
        {BESIDE: 2},
    ),
    "a small DAFormer": (
        original("daformer", backbone="mit_b0", channels=64),
        "DAFormer",
        {"backbone": "mit_b0", "channels": 64},
        19,
        {},
    ),
    "self-training": (
        self_training(),
        "DAFormer",
        {"backbone": "mit_b0"},
        19,
        {BESIDE: 2, "other copies than the student": 2 * len(DAFORMER)},
    ),
    "SegFormer": (
        {**META, "state_dict": original("segformer", backbone="mit_b1", channels=256)},
        "SegFormer",
        {"backbone": "mit_b1", "channels": 256},
        19,
        {BESIDE: 2},
    ),
    "torchvision": (
        backbone({n: t for n, t in RESNET18.items() if "conv2d_list" not in n}),
        "torchvision's ResNet",
        {"backbone": "resnet18", "input_form": "imagenet"},
        0,
        {HEAD: 2},
    ),
    "ResNet-v1c": (
        {**META, "state_dict": backbone(original("deeplabv2", **MMSEG), "backbone.")},
        "ResNet-v1c of mmseg",
        {"form": "mmseg", "backbone": "resnet50"},
        0,
        {BESIDE: 2, HEAD: 2},
    ),
    "MiT": (BARE | IMAGENET, "Mix Transformer", {"backbone": "mit_b0"}, 0, {HEAD: 2}),
    "MiT nested": ({"model": BARE}, "Mix Transformer", {"backbone": "mit_b0"}, 0, {}),
    "MiT of Hugging Face": (
        hugging_face(BARE) | CLASSIFIER,
        *("Mix Transformer", {"backbone": "mit_b0"}, 0, {HEAD: 2}),
    ),
    "discriminator of ADVENT": (
        original("discriminator", naming="advent"),
        "ADVENT's discriminator",
        {"naming": "advent"},
        19,
        {},
    ),
    "discriminator of AdaptSegNet": (
        original("discriminator", naming="adaptsegnet"),
        "AdaptSegNet's discriminator",
        {"naming": "adaptsegnet"},
        19,
        {},
    ),
}  # fmt: skip


@pytest.mark.parametrize("file", FILES)
def test_known_files_are_recognised(file):
    saved, kind, options, num_classes, dropped = FILES[file]
    found = recognise(saved, "x.pth")
    assert (found.kind.name, found.options) == (kind, options)
    assert found.num_classes == num_classes
    assert {rule: len(names) for rule, names in found.dropped.items()} == dropped


def test_every_kind_has_a_file():
    assert {kind.name for kind in KINDS} == {kind for _, kind, *_ in FILES.values()}


ONE_OF_EACH = {kind: file for file, (_, kind, *_) in reversed(FILES.items())}


@pytest.mark.parametrize("file", ONE_OF_EACH.values())
def test_recognised_tensors_fill_the_network(file):
    found = recognise(FILES[file][0], "x.pth")
    name, classes = found.kind.models[0], found.num_classes or 19
    options = dict(found.options)
    if found.kind.name == "ResNet-v1c of mmseg":
        options["width"] = SMALL["width"]
    model = build(NETWORKS, "model", {"name": name, **options}, classes)
    table = model.torch.to_flax
    if found.kind.table:
        table = (*found.kind.table, (r"^", model.backbone.replace("/", ".")))
    paths = [path for path, _ in convert.by_path(found.tensors, table)]
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    wanted = dict(convert._flat(*shapes))
    if not found.num_classes:
        wanted = {p: x for p, x in wanted.items() if f"/{model.backbone}" in p}
    assert sorted(paths) == sorted(wanted)


@pytest.mark.parametrize("copy", ["student", "teacher", "imagenet"])
def test_one_copy_of_a_self_training_checkpoint_is_taken(copy):
    prefixes = COPIES
    saved = {
        prefix + name: np.full(tensor.shape, i, np.float32)
        for i, prefix in enumerate(prefixes.values())
        for name, tensor in DAFORMER.items()
    }
    found = recognise(saved, "x.pth", copy)
    number = list(prefixes).index(copy)
    assert all((tensor == number).all() for tensor in found.tensors.values())
    left_out = found.dropped.pop(f"other copies than the {copy}")
    assert not any(name.startswith(prefixes[copy]) for name in left_out)
    assert len(left_out) == len(saved) * 2 // 3
    # The ImageNet copy's head was never trained.
    assert found.backbone_only == (copy == "imagenet") == bool(found.dropped)
    for head in found.dropped.values():
        assert all(name.startswith("imnet_model.decode_head.") for name in head)
    names = found.tensors.keys()
    assert any(n.startswith("decode_head.") for n in names) != found.backbone_only


def test_hugging_face_keys_and_values_join():
    rng = np.random.default_rng(0)
    kv = {"backbone.block1.0.attn.kv.weight", "backbone.block1.0.attn.kv.bias"}
    tensors = dict(BARE)
    for name in kv:
        bare = name.removeprefix("backbone.")
        tensors[bare] = rng.normal(size=BARE[bare].shape).astype(np.float32)
    found = recognise(hugging_face(tensors), "x.pth").tensors
    assert found.keys() == BARE.keys()
    for name in kv:
        bare = name.removeprefix("backbone.")
        np.testing.assert_array_equal(found[bare], tensors[bare])


def test_hugging_face_segmentors_and_the_files_own_names():
    ours = original("segformer", backbone="mit_b0", channels=256)
    ours["decode_head.linear_fuse.bn.num_batches_tracked"] = zeros(())
    encoder = {n: t for n, t in ours.items() if n.startswith("backbone.")}
    theirs = hugging_face(encoder)
    for name, tensor in ours.items():
        if name in encoder or "conv_seg" in name:
            continue
        for old, new in (
            ("linear_pred.", "classifier."),
            ("linear_fuse.conv.", "linear_fuse."),
            ("linear_fuse.bn.", "batch_norm."),
            *((f"linear_c{i + 1}.", f"linear_c.{i}.") for i in range(4)),
        ):
            name = name.replace(old, new)
        theirs[name] = tensor
    found = recognise(prefixed("module.", theirs), "x.pth")
    assert found.kind.name == "SegFormer" and found.num_classes == 19
    assert found.options == {"backbone": "mit_b0", "channels": 256}
    counter = "module.decode_head.batch_norm.num_batches_tracked"
    assert found.dropped == {COUNTERS: [counter]}
    block = "module.segformer.encoder.block.0.0.attention.self"
    assert found.own["backbone.block1.0.attn.kv.bias"] == (
        f"{block}.key.bias + {block}.value.bias"
    )
    fuse = "decode_head.linear_fuse.conv.weight"
    assert found.own[fuse] == "module.decode_head.linear_fuse.weight"
    added = found.tensors.keys() - found.own.keys()
    assert added == {"decode_head.conv_seg.weight", "decode_head.conv_seg.bias"}
    shapes = {n: t.shape for n, t in ours.items() if "num_batches" not in n}
    assert {n: t.shape for n, t in found.tensors.items()} == shapes


def test_names_are_the_files_own():
    (left_out,) = recognise(FILES["DeepLab init"][0], "x.pth").dropped.values()
    assert all(name.startswith("Scale.layer5.") for name in left_out)
    found = recognise({"state_dict": BARE, "\x1b[2J": 1}, "x.pth")
    assert found.dropped == {BESIDE: ["'\\x1b[2J'"]}
    odd = {"num_batches_tracked_too.weight": zeros((2,))}
    assert not recognise(BARE | odd, "x.pth").dropped


def renamed(tensors, old, new):
    return {name.replace(old, new): tensor for name, tensor in tensors.items()}


ITSELF = {}
ITSELF["state_dict"] = ITSELF


@pytest.mark.parametrize(
    ("saved", "words"),
    [
        ([1, 2], "holds list, no tensors"),
        ({}, "no tensors"),
        ({"state_dict": {"a": 3}}, "int under 'a'"),
        ({"state_dict": {3: zeros((2,))}}, "under 3"),
        (ITSELF, "state_dict inside of 4 others"),
        ({"a\nb": zeros((2,))}, r"name 'a\\nb'"),
        (
            {**self_training()["state_dict"], "extra.weight": zeros((2,))},
            "in none of them, extra.weight",
        ),
        ({"photo": zeros((2,))}, r"1 tensors \(photo, ...\) and is of no known kind"),
        (renamed(RESNET18, "layer3.1", "layer3x1"), r"\(2, 2, 1, 2\) basic blocks"),
        ({n: t for n, t in DAFORMER.items() if "conv_seg" not in n}, "conv_seg.weight"),
        ({n: t for n, t in BARE.items() if "block3.1" not in n}, r"\(2, 2, 1, 2\)"),
    ],
)
def test_unknown_files_are_explained(saved, words):
    with pytest.raises(UserError, match=words) as error:
        recognise(saved, "x.pth")
    assert str(error.value).startswith("x.pth ") and "\n" not in str(error.value)


def test_variants_are_told_apart_by_shapes():
    for name, (dims, depths) in mit.VARIANTS.items():
        tensors = {"patch_embed1.proj.weight": zeros((dims[0], 3, 7, 7))}
        for stage, count in enumerate(depths, 1):
            for i in range(count):
                tensors[f"block{stage}.{i}.norm1.weight"] = zeros((dims[stage - 1],))
        assert recognise(tensors, "x.pth").options == {"backbone": name}
