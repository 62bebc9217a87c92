"""PyTorch's checkpoint files, read and written without PyTorch."""

import io
import mmap
import os
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Mapping
from functools import cache
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open

from uda_jax.errors import UserError
from uda_jax.torch_pickle import (
    damaged,
    fill_tensors,
    load_pickle,
    one_sentence,
    shown,
)

MAGIC = 0x1950A86A20F9469CFC6C  # of the format before PyTorch 1.6
PROTOCOL = 1001


def read(path: str | os.PathLike) -> Any:
    """What a checkpoint holds, with numpy arrays in the place of tensors.

    Reads PyTorch's zip format, the one before it (up to PyTorch 1.5) and safetensors;
    the content decides, not the name.  The arrays of PyTorch's formats are read-only
    views of the mapped file, with the strides, offsets and shared storages that they
    have there; a zip's are read once, for their check sums, and need not stay in
    memory.  Those of safetensors are copies.  bfloat16 is `ml_dtypes.bfloat16`.

    Returns:
      The saved object: dicts, lists, tuples, numbers, strings and arrays.

    Raises:
      UserError: missing, truncated, damaged or no checkpoint; or its pickle asks for
        something that is not on the list.
    """
    path = Path(path)
    try:
        with open(path, "rb") as stream:
            data = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
    except FileNotFoundError:
        raise UserError(f"{path} does not exist: give a checkpoint file.") from None
    except (OSError, ValueError) as error:
        reason = "it is empty" if isinstance(error, ValueError) else error.strerror
        raise UserError(
            f"{path} cannot be read ({reason}): give a checkpoint file."
        ) from error
    if data[:2] == b"PK":
        return _read_zip(path, data)
    # Before the pickle: a header of 128, 384, ... bytes begins like one.  The magic
    # number of PyTorch's has another byte in the place of the brace.
    if data[8:9] == b"{":
        return _read_safetensors(path)
    if data[:1] == b"\x80":
        return _read_legacy(path, data)
    raise UserError(
        f"{path} is no checkpoint (it begins with {data[:8]!r}): give a file of "
        "torch.save or a safetensors file."
    )


def write(path: str | os.PathLike, tensors: Mapping[str, np.ndarray]) -> Path:
    """Writes a state_dict that `torch.load(path, weights_only=True)` gives back.

    The file appears whole or not at all.

    Args:
      path: of the new file; its folder is made.
      tensors: float32 or int64 arrays by name, kept in this order.

    Returns:
      The path written.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".", dir=path.parent) as folder:
        unfinished = Path(folder) / path.name
        with zipfile.ZipFile(unfinished, "w") as archive:
            archive.writestr("archive/data.pkl", state_dict_pickle(tensors))
            archive.writestr("archive/byteorder", b"little")
            for key, tensor in enumerate(tensors.values()):
                archive.writestr(f"archive/data/{key}", tensor.tobytes())
            archive.writestr("archive/version", b"3\n")
        os.replace(unfinished, path)
    return path


# --- the pickle of a written file -----------------------------------------------------


def state_dict_pickle(tensors: Mapping[str, np.ndarray]) -> bytes:
    """The pickle of an OrderedDict of tensors; storage i is that of the i-th tensor.

    Protocol 2, put together from its opcodes, because PyTorch's classes are not here.

    Args:
      tensors: float32 or int64 arrays by name.
    """
    parts = [b"\x80\x02", b"ccollections\nOrderedDict\n)R("]
    for key, (name, tensor) in enumerate(tensors.items()):
        storage = {"float32": "FloatStorage", "int64": "LongStorage"}[str(tensor.dtype)]
        strides = [prod(tensor.shape[axis + 1 :]) for axis in range(tensor.ndim)]
        parts += [
            _text(name),
            b"ctorch._utils\n_rebuild_tensor_v2\n(",
            b"(" + _text("storage") + b"ctorch\n" + storage.encode() + b"\n",
            _text(str(key)) + _text("cpu") + _integer(tensor.size) + b"tQ",
            _integer(0) + _integers(tensor.shape) + _integers(strides),
            b"\x89ccollections\nOrderedDict\n)RtR",  # requires_grad, hooks
        ]
    return b"".join(parts) + b"u."


def _text(text: str) -> bytes:
    data = text.encode("utf-8")
    return b"X" + struct.pack("<I", len(data)) + data


def _integer(number: int) -> bytes:
    return b"J" + struct.pack("<i", number)


def _integers(numbers) -> bytes:
    return b"(" + b"".join(map(_integer, numbers)) + b"t"


# --- the three formats ----------------------------------------------------------------


def _read_zip(path, data):
    with one_sentence(path), zipfile.ZipFile(path) as archive:
        entries = {}
        for entry in archive.infolist():
            # Two programs could read two networks from such a file.
            if entries.setdefault(entry.filename, entry) is not entry:
                raise damaged(path, f"it holds {shown(entry.filename)} twice")
    pickles = [name for name in entries if name.endswith("/data.pkl")]
    folder = pickles[0].removesuffix("data.pkl") if len(pickles) == 1 else ""
    if not folder or f"{folder}constants.pkl" in entries:
        names = ", ".join(map(shown, list(entries)[:3]))
        raise UserError(
            f"{path} is a zip file, but not torch.save's (it holds {names}): give a "
            "file with a state_dict."
        )
    if (order := f"{folder}byteorder") in entries and bytes(
        _record(path, data, entries, order)
    ) != b"little":
        raise UserError(
            f"{path} was saved on a big-endian machine: load and save it with PyTorch "
            "on an ordinary one."
        )
    pickled = io.BytesIO(_record(path, data, entries, pickles[0]))
    saved, _ = load_pickle(pickled, path)

    @cache  # many tensors may view one storage, whose check sum takes time
    def find(storage):
        record = _record(path, data, entries, f"{folder}data/{storage.key}")
        if len(record) < storage.numel * storage.dtype.itemsize:
            raise damaged(path, f"storage {shown(storage.key)} is too short")
        return record, 0

    return fill_tensors(saved, path, find)


def _record(path, data, entries, name) -> memoryview:
    """The bytes of one entry, still in the mapped file."""
    if name not in entries:
        raise damaged(path, f"{shown(name)} is missing")
    entry = entries[name]
    if entry.compress_type != zipfile.ZIP_STORED:
        raise UserError(
            f"{path} was compressed after torch.save ({shown(name)}): load and save it "
            "with PyTorch, or unpack it and pack it again without compression."
        )
    # The local header may be longer than the central one: PyTorch aligns with it.
    header = data[entry.header_offset : entry.header_offset + 30]
    if len(header) != 30:
        raise damaged(path, f"{shown(name)} is cut off")
    start = entry.header_offset + 30 + sum(struct.unpack_from("<HH", header, 26))
    view = memoryview(data)[start : start + entry.file_size]
    if len(view) != entry.file_size or zlib.crc32(view) != entry.CRC:
        raise damaged(path, f"{shown(name)} does not have its check sum")
    if hasattr(mmap, "MADV_DONTNEED"):
        # A training checkpoint has the optimizer's state and copies of the network too:
        # what was only summed up need not stay in memory.
        page = start // mmap.PAGESIZE * mmap.PAGESIZE
        data.madvise(mmap.MADV_DONTNEED, page, start - page + entry.file_size)
    return view


def _read_legacy(path, data):
    first, _ = load_pickle(data, path)
    if first != MAGIC:
        raise UserError(
            f"{path} is a pickle, but not torch.save's: give a file with a state_dict."
        )
    version, _ = load_pickle(data, path)
    system, _ = load_pickle(data, path)
    little = system.get("little_endian", True) if isinstance(system, dict) else "?"
    if version != PROTOCOL or little is not True:
        raise UserError(
            f"{path} has PyTorch's file protocol {shown(version)}, little-endian "
            f"{shown(little)}; only {PROTOCOL} of little-endian machines is read: save "
            "it with a PyTorch of today."
        )
    saved, storages = load_pickle(data, path)
    keys, _ = load_pickle(data, path)
    if (
        not isinstance(keys, list)
        or len(keys) != len(storages)
        or not all(isinstance(key, str | int) for key in keys)
        or set(map(str, keys)) != storages.keys()
    ):
        raise damaged(path, "its list of storages is not that of its tensors")
    starts, place = {}, data.tell()
    for key in map(str, keys):
        storage = storages[key]
        size = storage.numel * storage.dtype.itemsize
        if data[place : place + 8] != struct.pack("<q", storage.numel) or (
            place + 8 + size > len(data)
        ):
            raise damaged(path, f"storage {shown(key)} is not whole")
        starts[key] = place + 8
        place += 8 + size
    return fill_tensors(saved, path, lambda storage: (data, starts[storage.key]))


def _read_safetensors(path):
    with one_sentence(path), safe_open(path, framework="np") as file:
        tensors = {}
        for name in file.keys():  # noqa: SIM118
            try:
                tensors[name] = file.get_tensor(name)
            except (AttributeError, TypeError, KeyError) as error:
                kind = file.get_slice(name).get_dtype()
                raise UserError(
                    f"{path} holds {shown(name)} as {shown(kind)}, which numpy has "
                    "not: save it as float32, float16 or bfloat16."
                ) from error
        return tensors
