"""PyTorch's files: both formats, views and small types, and nothing is ever run."""

import io
import os
import pickle
import struct
import sys
import types
import zipfile
import zlib
from collections import OrderedDict

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from uda_jax import torch_files
from uda_jax.errors import UserError

STORAGES = {
    "float32": "FloatStorage", "float16": "HalfStorage", "bool": "BoolStorage",
    "bfloat16": "BFloat16Storage", "int64": "LongStorage",
}  # fmt: skip


class Storage:
    def __init__(self, array):
        self.array = array


class Tensor:
    """A view (in elements) of a storage, pickled as PyTorch pickles its tensors."""

    def __init__(self, storage, size, stride, offset=0):
        self.parts = (storage, offset, size, stride, False, OrderedDict())

    def __reduce__(self):
        return sys.modules["torch._utils"]._rebuild_tensor_v2, self.parts


@pytest.fixture
def pickled(monkeypatch):
    """object -> (its pickle with PyTorch's names, the arrays of its storages)."""
    torch, inner = types.ModuleType("torch"), types.ModuleType("torch._utils")
    for name in STORAGES.values():
        setattr(torch, name, type(name, (), {"__module__": "torch"}))
    rebuild = type("_rebuild_tensor_v2", (), {"__module__": "torch._utils"})
    inner._rebuild_tensor_v2 = rebuild
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setitem(sys.modules, "torch._utils", inner)

    def dump(saved, legacy):
        arrays = []

        class Pickler(pickle.Pickler):
            def persistent_id(self, item):
                if not isinstance(item, Storage):
                    return None
                known = [i for i, a in enumerate(arrays) if a is item.array]
                if not known:
                    arrays.append(item.array)
                key = known[0] if known else len(arrays) - 1
                kind = getattr(torch, STORAGES[str(item.array.dtype)])
                more = (None,) if legacy else ()
                return ("storage", kind, str(key), "cpu", item.array.size, *more)

        stream = io.BytesIO()
        Pickler(stream, 2).dump(saved)
        return stream.getvalue(), arrays

    return dump


def old_format(dump, saved):
    data, arrays = dump(saved, True)
    system = {"protocol_version": 1001, "little_endian": True, "type_sizes": {}}
    head = [pickle.dumps(o, 2) for o in (torch_files.MAGIC, 1001, system)]
    keys = pickle.dumps([str(i) for i in range(len(arrays))], 2)
    tail = [struct.pack("<q", a.size) + a.tobytes() for a in arrays]
    return b"".join([*head, data, keys, *tail])


def zip_format(dump, saved, compression=zipfile.ZIP_STORED):
    data, arrays = dump(saved, False)
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as archive:
        archive.writestr("archive/data.pkl", data)
        for key, array in enumerate(arrays):
            archive.writestr(f"archive/data/{key}", array.tobytes())
        archive.writestr("archive/version", b"3\n")
    return stream.getvalue()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "x.pth"  # the content decides, not the name


FORMATS = {"zip": zip_format, "old": old_format}
BASE = np.arange(60, dtype=np.float32) / 7


def a_checkpoint():
    base = Storage(BASE)
    half = Storage(np.array([1.5, -2, 65504], np.float16))
    brain = Storage(np.array([1.5, -3e38, 0.1], ml_dtypes.bfloat16))
    count = Storage(np.array([2**40], np.int64))
    mask = Storage(np.array([True, False]))
    shared = (3, Tensor(base, (60,), (1,)))
    return {
        "state_dict": OrderedDict(
            whole=Tensor(base, (3, 4, 5), (20, 5, 1)),
            transposed=Tensor(base, (5, 4), (1, 5), 20),
            strided=Tensor(base, (2, 3), (30, 7), 3),
            half=Tensor(half, (3,), (1,)),
            brain=Tensor(brain, (3,), (1,)),
            count=Tensor(count, (), ()),
            mask=Tensor(mask, (2,), (1,)),
            empty=Tensor(base, (0, 3), (3, 1)),
        ),
        "epoch": 7,
        "best_MIou": np.float64(0.46),
        "nested": [shared, {"again": shared}],
    }


@pytest.mark.parametrize("form", FORMATS)
def test_both_formats_give_the_same_arrays(pickled, path, form):
    path.write_bytes(FORMATS[form](pickled, a_checkpoint()))
    saved = torch_files.read(path)
    tensors, cube = saved["state_dict"], BASE.reshape(3, 4, 5)
    for name, expected in {
        "whole": cube,
        "transposed": cube[1].T,
        "strided": BASE[[[3, 10, 17], [33, 40, 47]]],
        "half": np.array([1.5, -2, 65504], np.float16),
        "brain": np.array([1.5, -3e38, 0.1], ml_dtypes.bfloat16),
        "count": np.array(2**40),
        "mask": np.array([True, False]),
        "empty": np.zeros((0, 3), np.float32),
    }.items():
        assert tensors[name].dtype == expected.dtype, name
        np.testing.assert_array_equal(tensors[name], expected)
    assert saved["epoch"] == 7 and saved["best_MIou"] == 0.46
    (three, whole), again = saved["nested"]
    assert three == 3 and again["again"][1] is whole
    # Views of the mapped file: nothing was copied, and nothing can be changed.
    assert not whole.flags.owndata and not whole.flags.writeable


@pytest.mark.parametrize("form", FORMATS)
def test_every_cut_is_noticed_and_damage_is_a_sentence_or_harmless(pickled, path, form):
    data, rng = FORMATS[form](pickled, a_checkpoint()), np.random.default_rng(0)
    for end in range(0, len(data), 37):
        path.write_bytes(data[:end])
        refused(path)
    for _ in range(300):
        broken = bytearray(data)
        for _ in range(rng.integers(1, 5)):
            broken[rng.integers(len(data))] = rng.integers(256)
        path.write_bytes(broken)
        try:
            torch_files.read(path)
        except UserError as error:
            assert str(path) in str(error)


def refused(path, *words):
    """The UserError, one sentence that names the file."""
    with pytest.raises(UserError) as error:
        torch_files.read(path)
    text = str(error.value)
    assert str(path) in text and "\n" not in text and len(text) < 400
    for word in words:
        assert word in text
    return text


class Hostile:
    def __init__(self, function, *arguments):
        self.parts = function, arguments

    def __reduce__(self):
        return self.parts


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("protocol", [2, 4])
def test_a_hostile_pickle_is_refused_by_name(path, tmp_path, form, protocol):
    marker = tmp_path / "marker"
    for attack, name in (
        (Hostile(os.system, f"touch {marker}"), "posix.system"),
        (Hostile(eval, f"open({str(marker)!r}, 'w')"), "eval'"),
        (Hostile(getattr, 1, "real"), "getattr'"),
        (Hostile(__import__, "this"), "__import__'"),
        (Hostile(np.dtype, "O"), ""),
    ):
        dump = lambda saved, legacy: (pickle.dumps(saved, protocol), [])
        path.write_bytes(FORMATS[form](dump, {"state_dict": attack}))
        refused(path, name)
        assert not marker.exists()


def test_what_a_pickle_may_call_cannot_be_changed(path):
    # BUILD with a state for attributes, on the function that rebuilds tensors.
    attack = b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\nN}X\x09\x00\x00\x00_function"
    attack += b"K\x01s\x86b."
    path.write_bytes(FORMATS["zip"](lambda saved, legacy: (attack, []), None))
    refused(path, "AttributeError")


@pytest.mark.parametrize("form", FORMATS)
def test_an_ordered_dict_is_read_as_a_plain_one(pickled, path, form):
    class Answers(OrderedDict):  # a state of attributes, as `_metadata` is
        def __reduce__(self):
            return OrderedDict, (), {"get": 5, "items": 5}, None, iter([("a", 1)])

    python_2 = Hostile(OrderedDict, [["b", Tensor(Storage(BASE), (60,), (1,))]])
    path.write_bytes(FORMATS[form](pickled, {"new": Answers(), "old": python_2}))
    saved = torch_files.read(path)
    assert type(saved["new"]) is dict and saved["new"].get("a") == 1
    np.testing.assert_array_equal(saved["old"]["b"], BASE)
    heads = [pickle.dumps(head, 2) for head in (torch_files.MAGIC, 1001, Answers())]
    path.write_bytes(b"".join([*heads, pickle.dumps("s", 2), pickle.dumps([], 2)]))
    assert torch_files.read(path) == "s"


def doubled():
    """2**60 items for whoever prints or copies all of them."""
    nest = [1, 1]
    for _ in range(60):
        nest = [nest, nest]
    return nest


def after(arguments, end, start=b""):
    return b"\x80\x02" + start + pickle.dumps(arguments, 2)[2:-1] + end


@pytest.mark.parametrize("form", FORMATS)
def test_a_few_bytes_cannot_fill_the_memory(path, form):
    for data in (
        b"\x80\x02Nr\xff\xff\xff\xff.",  # object 2**32 - 1 of the memo
        b"\x80\x02Np99999999999\n.",
        b"\x80\x04\x8e" + struct.pack("<Q", 2**36) + b"ab.",
        after((doubled(),), b"R.", b"ctorch\ndevice\n"),
        after(("x" * 1000,), b"R.", b"ctorch\ndevice\n"),
        after(([1] * 1000,), b"R.", b"ctorch\nSize\n"),
        after((doubled(),), b"R.", b"cnumpy\ndtype\n"),
        after(("a", doubled()), b"R.", b"c_codecs\nencode\n"),
        after(("a" * 10_000, "latin1"), b"R.", b"c_codecs\nencode\n"),
        after(("storage", doubled(), "0", "cpu", 5), b"Q."),
        after(("storage", "FloatStorage", doubled(), "cpu", 5), b"Q."),
        after(("storage", "FloatStorage", "0", "cpu", doubled()), b"Q."),
        after(("storage", "FloatStorage", "0", "cpu", -1), b"Q."),
    ):
        path.write_bytes(FORMATS[form](lambda saved, legacy, d=data: (d, []), None))
        refused(path)


def test_a_shared_storage_is_summed_once(pickled, path, monkeypatch):
    sums = []
    summing = lambda data: sums.append(len(data)) or zlib.crc32(data)
    monkeypatch.setattr(torch_files, "zlib", types.SimpleNamespace(crc32=summing))
    path.write_bytes(FORMATS["zip"](pickled, a_checkpoint()))  # five of its tensors do
    torch_files.read(path)
    assert sums.count(BASE.nbytes) == 1


@pytest.mark.parametrize("form", FORMATS)
def test_tensors_stay_inside_of_their_storage(pickled, path, form):
    base = Storage(BASE)
    for size, stride, offset in (
        ((61,), (1,), 0), ((2, 30), (31, 1), 0), ((60,), (1,), 1), ((2,), (1,), -1),
        ((2,), (-1,), 1), ((-2,), (1,), 0), ((2, 2), (1,), 0),
    ):  # fmt: skip
        saved = {"a": [{"b\n\x1b[m": Tensor(base, size, stride, offset)}]}
        path.write_bytes(FORMATS[form](pickled, saved))
        text = refused(path)
        assert text.isprintable()
        assert r"['a'][0]['b\n\x1b[m']" in text or len(size) != len(stride)
    # No numbers are saved for it, and a copy would fill the memory.
    path.write_bytes(FORMATS[form](pickled, {"w": Tensor(base, (10**10,), (0,))}))
    refused(path, "tensor ['w']", "contiguous")
    # Steps of axes with one element say nothing.
    path.write_bytes(FORMATS[form](pickled, {"w": Tensor(base, (1, 1), (0, 99))}))
    assert torch_files.read(path)["w"].shape == (1, 1)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_other_files_are_refused(pickled, path, tmp_path):
    refused(path, "does not exist")
    refused(tmp_path, "cannot be read")
    for data, word in (
        (b"", "empty"),
        (b"<html>not found</html>", "no checkpoint"),
        (pickle.dumps({"a": 1}), "not torch.save's"),
        (pickle.dumps({"a": 1}, 2).replace(b"\x80\x02", b"\x80\x63"), "protocol"),
        (pickle.dumps(torch_files.MAGIC, 2) + pickle.dumps(7, 2) * 2, "protocol 7"),
        (pickle.dumps(torch_files.MAGIC, 2) + pickle.dumps(doubled(), 2) * 2, "a list"),
        (FORMATS["zip"](pickled, {}, zipfile.ZIP_DEFLATED), "compressed"),
    ):
        path.write_bytes(data)
        refused(path, word)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("photo\n\x1b[m.jpg", b"x")
    refused(path, r"photo\n\x1b[m.jpg")
    good = FORMATS["zip"](pickled, a_checkpoint())
    path.write_bytes(good.replace(BASE.tobytes(), BASE[::-1].tobytes()))
    refused(path, "check sum")
    path.write_bytes(good)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("archive/data/0", BASE[::-1].tobytes())
    refused(path, "'archive/data/0' twice")


def test_a_header_as_long_as_a_pickle_begins(path):
    for length in range(200):
        save_file({"a": np.arange(3.0)}, path, metadata={"x": "-" * length})
        if path.read_bytes()[:1] == b"\x80":  # its low byte, and a pickle's first
            break
    assert path.read_bytes()[:1] == b"\x80"
    np.testing.assert_array_equal(torch_files.read(path)["a"], [0, 1, 2])


def test_safetensors_are_read(path):
    save_file({"a": BASE.reshape(3, 20), "b": BASE.astype(np.float16)}, path)
    saved = torch_files.read(path)
    np.testing.assert_array_equal(saved["a"], BASE.reshape(3, 20))
    assert saved["b"].dtype == np.float16
    data = path.read_bytes()
    path.write_bytes(data[:-9])
    refused(path, "truncated")
    path.write_bytes(data.replace(b'"F16"', b'"F8_E4M3"'))
    refused(path, "SafetensorError")
    head = b'{"w":{"dtype":"F8_E4M3","shape":[4],"data_offsets":[0,4]}}'
    path.write_bytes(struct.pack("<Q", len(head)) + head + b"1234")
    refused(path, "'w' as 'F8_E4M3'", "float32")


TENSORS = {
    "conv.weight": np.arange(24, dtype=np.float32).reshape(2, 3, 2, 2)[:, ::-1],
    "bn.num_batches_tracked": np.array(3),
    "bn.bias": np.ones(5, np.float32),
}


def test_written_files_come_back(tmp_path):
    path = torch_files.write(tmp_path / "new" / "x.pth", TENSORS)
    saved = torch_files.read(path)
    assert list(saved) == list(TENSORS)
    for name, tensor in TENSORS.items():
        assert saved[name].dtype == tensor.dtype
        np.testing.assert_array_equal(saved[name], tensor)
    with pytest.raises(KeyError):
        torch_files.write(tmp_path / "y.pth", {"a": np.zeros(2, np.float64)})
    assert [p.name for p in tmp_path.rglob("*") if p.is_file()] == ["x.pth"]


def test_pytorch_reads_what_is_written(tmp_path):
    torch = pytest.importorskip("torch")
    path = torch_files.write(tmp_path / "x.pth", TENSORS)
    for options in ({}, {"mmap": True}):
        saved = torch.load(path, weights_only=True, **options)
        assert type(saved) is OrderedDict and list(saved) == list(TENSORS)
        for name, tensor in TENSORS.items():
            np.testing.assert_array_equal(saved[name].numpy(), tensor)


@pytest.mark.parametrize("new", [True, False])
def test_what_pytorch_writes_is_read(path, new):
    torch = pytest.importorskip("torch")
    base = torch.randn(10, 12)
    layers = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    optimizer = torch.optim.SGD(layers.parameters(), lr=0.1, momentum=0.9)
    layers(torch.randn(1, 3, 5, 5)).sum().backward()
    optimizer.step()
    tensors = {
        "base": base,
        "view": base[2:5, 1::3],
        "transposed": base.t(),
        **{str(t): base.to(t) for t in (torch.half, torch.bfloat16, torch.double)},
        "parameter": torch.nn.Parameter(base),
        "count": torch.arange(5),
        "scalar": torch.tensor(7),
        "empty": torch.zeros(0, 3),
        "mask": base > 0,
        **layers.state_dict(),
    }
    saved = {
        "state_dict": layers.state_dict(),
        "optimizer": optimizer.state_dict(),
        "tensors": tensors,
        "best": np.float64(3.25),
        "size": torch.Size([1, 2]),
        "dtype": torch.float16,
        "device": torch.device("cpu"),
    }
    torch.save(saved, path, _use_new_zipfile_serialization=new)
    read = torch_files.read(path)
    for name, tensor in tensors.items():
        mine = read["tensors"][name]
        assert str(mine.dtype) == str(tensor.dtype).removeprefix("torch.")
        np.testing.assert_array_equal(
            mine.astype(np.float64), tensor.detach().double().numpy()
        )
    assert read["best"] == 3.25 and read["size"] == (1, 2)
    assert read["optimizer"]["param_groups"][0]["momentum"] == 0.9
