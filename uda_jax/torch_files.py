"""PyTorch's checkpoint files, read and written without PyTorch."""

import io
import mmap
import os
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from uda_jax.errors import UserError
from uda_jax.torch_pickle import damaged, fill_tensors, load_pickle, state_dict_pickle

MAGIC = 0x1950A86A20F9469CFC6C  # of the format before PyTorch 1.6
PROTOCOL = 1001


def read(path: str | os.PathLike) -> Any:
    """What a checkpoint holds, with numpy arrays in the place of tensors.

    Reads PyTorch's zip format, the one before it (up to PyTorch 1.5) and safetensors;
    the content decides, not the name.  The arrays are read-only views of the mapped
    file (strides, offsets and shared storages as they are there), so that nothing is
    loaded before it is looked at; bfloat16 is `ml_dtypes.bfloat16`.

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
    if data[:1] == b"\x80":
        return _read_legacy(path, data)
    if data[8:9] == b"{":
        return _read_safetensors(path)
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


# --- the three formats ----------------------------------------------------------------


def _read_zip(path, data):
    try:
        with zipfile.ZipFile(path) as archive:
            entries = {entry.filename: entry for entry in archive.infolist()}
    except (zipfile.BadZipFile, ValueError, NotImplementedError, OSError) as error:
        raise damaged(path, error) from error
    pickles = [name for name in entries if name.endswith("/data.pkl")]
    folder = pickles[0].removesuffix("data.pkl") if len(pickles) == 1 else ""
    if not folder or f"{folder}constants.pkl" in entries:
        raise UserError(
            f"{path} is a zip file, but not torch.save's (it holds "
            f"{', '.join(list(entries)[:3])}): give a file with a state_dict."
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

    def find(storage):
        record = _record(path, data, entries, f"{folder}data/{storage.key}")
        if len(record) < storage.numel * storage.dtype.itemsize:
            raise damaged(path, f"storage {storage.key} is too short")
        return record, 0

    return fill_tensors(saved, path, find)


def _record(path, data, entries, name) -> memoryview:
    """The bytes of one entry, still in the mapped file."""
    if name not in entries:
        raise damaged(path, f"{name} is missing")
    entry = entries[name]
    if entry.compress_type != zipfile.ZIP_STORED:
        raise UserError(
            f"{path} was compressed after torch.save ({name}): load and save it with "
            "PyTorch, or unpack it and pack it again without compression."
        )
    # The local header may be longer than the central one: PyTorch aligns with it.
    header = data[entry.header_offset : entry.header_offset + 30]
    if len(header) != 30:
        raise damaged(path, f"{name} is cut off")
    start = entry.header_offset + 30 + sum(struct.unpack_from("<HH", header, 26))
    view = memoryview(data)[start : start + entry.file_size]
    if len(view) != entry.file_size or zlib.crc32(view) != entry.CRC:
        raise damaged(path, f"{name} does not have its check sum")
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
    if version != PROTOCOL or not (
        isinstance(system, dict) and system.get("little_endian", True)
    ):
        raise UserError(
            f"{path} has PyTorch's file protocol {version}, little-endian "
            f"{system.get('little_endian') if isinstance(system, dict) else '?'}; only "
            f"{PROTOCOL} of little-endian machines is read: save it with a PyTorch of "
            "today."
        )
    saved, storages = load_pickle(data, path)
    keys, _ = load_pickle(data, path)
    if not isinstance(keys, list) or set(map(str, keys)) != storages.keys():
        raise damaged(path, "its list of storages is not that of its tensors")
    starts, place = {}, data.tell()
    for key in map(str, keys):
        storage = storages[key]
        size = storage.numel * storage.dtype.itemsize
        if data[place : place + 8] != struct.pack("<q", storage.numel) or (
            place + 8 + size > len(data)
        ):
            raise damaged(path, f"storage {key} is not whole")
        starts[key] = place + 8
        place += 8 + size
    return fill_tensors(saved, path, lambda storage: (data, starts[storage.key]))


def _read_safetensors(path):
    try:
        with safe_open(path, framework="np") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, TypeError, KeyError) as error:
        raise damaged(path, error) from error
