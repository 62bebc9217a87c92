"""The pickle inside PyTorch's checkpoints, read without trust and without PyTorch.

A pickle can call any function of the machine that reads it.  Here it may name only what
`_ALLOWED` lists; everything else is refused by its name and never imported.
"""

import pickle
import struct
from collections import OrderedDict
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import ml_dtypes
import numpy as np

from uda_jax.errors import UserError

_STORAGES = {
    "DoubleStorage": np.float64,
    "FloatStorage": np.float32,
    "HalfStorage": np.float16,
    "BFloat16Storage": ml_dtypes.bfloat16,
    "LongStorage": np.int64,
    "IntStorage": np.int32,
    "ShortStorage": np.int16,
    "CharStorage": np.int8,
    "ByteStorage": np.uint8,
    "BoolStorage": np.bool_,
}
_DTYPES = (
    "float64", "double", "float32", "float", "float16", "half", "bfloat16", "int64",
    "long", "int32", "int", "int16", "short", "int8", "uint8", "bool",
)  # fmt: skip


class Storage(NamedTuple):
    """Numbers that one or more tensors view: `numel` of them under the name `key`."""

    dtype: np.dtype
    key: str
    numel: int


class _Tensor(NamedTuple):
    """A tensor whose storage need not have been found yet."""

    storage: Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


class _Call:
    """A function that a pickle can call but not change."""

    __slots__ = ("_function",)

    def __init__(self, function):
        object.__setattr__(self, "_function", function)

    def __call__(self, *args):
        return self._function(*args)

    def __setattr__(self, name, value):
        raise AttributeError(name)


class _NumpyType:
    """Stands for the numpy.dtype of a pickled number."""

    __slots__ = ("name",)

    def __init__(self, code, *_):
        if not (isinstance(code, str) and code[:1] in "fiub" and len(code) == 2):
            raise ValueError(f"numpy type {code!r}")
        self.name = code

    def __setstate__(self, state):
        if state[1] in ("<", ">", "|"):
            self.name = state[1] + self.name[-2:]


def _number(kind, data):
    if isinstance(data, str):  # written by Python 2
        data = data.encode("latin1")
    return np.frombuffer(data, np.dtype(kind.name), 1)[0]


def _encode(text, encoding):
    if encoding != "latin1":
        raise ValueError(encoding)
    return text.encode("latin1")


def _tensor(storage, offset, size, stride, *_):
    if not isinstance(storage, Storage):
        raise ValueError("a tensor without a storage")
    return _Tensor(storage, int(offset), tuple(size), tuple(stride))


_ALLOWED = {
    "collections.OrderedDict": _Call(OrderedDict),
    "torch._utils._rebuild_tensor": _Call(_tensor),
    "torch._utils._rebuild_tensor_v2": _Call(_tensor),
    "torch._utils._rebuild_parameter": _Call(lambda tensor, *_: tensor),
    "torch.Size": _Call(tuple),
    "torch.device": _Call(lambda *parts: ":".join(map(str, parts))),
    "_codecs.encode": _Call(_encode),
    "numpy.dtype": _Call(_NumpyType),
    "numpy.core.multiarray.scalar": _Call(_number),
    "numpy._core.multiarray.scalar": _Call(_number),
    # As text: a pickle could change the state of a shared numpy.dtype.
    **{f"torch.{name}": name for name in (*_STORAGES, *_DTYPES)},
}


class _Unpickler(pickle.Unpickler):
    def __init__(self, stream, path):
        # Python 2's strings: bytes survive latin1, and names are ASCII anyway.
        super().__init__(stream, encoding="latin1")
        self.path = path
        self.storages: dict[str, Storage] = {}

    def find_class(self, module, name):
        try:
            return _ALLOWED[f"{module}.{name}"]
        except KeyError:
            raise UserError(
                f"{self.path} asks for {f'{module}.{name}'[:80]!r}, which no network's "
                "weights need; it was not run: save the state_dict alone, or do not "
                "trust this file."
            ) from None

    def persistent_load(self, saved_id):
        kind, name, key, _, numel, *view = saved_id
        if kind != "storage" or name not in _STORAGES or any(view):
            raise ValueError(f"unknown storage {saved_id!r}")
        storage = Storage(np.dtype(_STORAGES[name]), str(key), int(numel))
        if self.storages.setdefault(storage.key, storage) != storage:
            raise ValueError(f"two descriptions of storage {storage.key}")
        return storage


def damaged(path: Path, reason: object) -> UserError:
    """The sentence about a file whose inside contradicts itself."""
    return UserError(
        f"{path} is truncated, damaged or no checkpoint ({str(reason)[:120]}): copy or "
        "download it again."
    )


@contextmanager
def _one_sentence(path):
    """Whatever a damaged or hostile pickle raises becomes a UserError."""
    try:
        yield
    except UserError:
        raise
    except EOFError as error:
        raise damaged(path, "it ends too early") from error
    except Exception as error:
        raise damaged(path, f"{type(error).__name__}: {error}") from error


def load_pickle(stream: BinaryIO, path: Path) -> tuple[Any, dict[str, Storage]]:
    """One pickle from `stream`, and the storages that it names.

    Tensors are placeholders until `fill_tensors`, because in the old format the numbers
    come after them.

    Raises:
      UserError: it asks for what is not on the list, or is not whole.
    """
    unpickler = _Unpickler(stream, path)
    with _one_sentence(path):
        return unpickler.load(), unpickler.storages


def fill_tensors(
    saved: Any, path: Path, find: Callable[[Storage], tuple[Any, int]]
) -> Any:
    """The same object with an array in the place of every tensor, a view if possible.

    Args:
      saved: from `load_pickle`; its dicts and lists are changed.
      path: for messages.
      find: storage -> (buffer, first byte in it).

    Raises:
      UserError: a tensor reaches outside of its storage.
    """
    with _one_sentence(path):
        return _fill(saved, path, find, {})


def _fill(node, path, find, seen):
    if isinstance(node, _Tensor):
        return _array(node, path, find)
    if id(node) in seen:  # shared by two others, or by itself
        return seen[id(node)][1]
    new = node
    seen[id(node)] = node, node  # keeps the id from being given again
    if isinstance(node, dict):
        for key, value in node.items():
            node[key] = _fill(value, path, find, seen)
    elif isinstance(node, list):
        node[:] = [_fill(value, path, find, seen) for value in node]
    elif type(node) is tuple:
        new = tuple(_fill(value, path, find, seen) for value in node)
        seen[id(node)] = node, new
    return new


def _array(tensor, path, find):
    storage, offset, size, stride = tensor
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if min((offset, *size, *stride)) < 0 or (0 not in size and last >= storage.numel):
        raise damaged(path, f"a tensor reaches outside of its storage {storage.key}")
    buffer, start = find(storage)
    flat = np.frombuffer(buffer, storage.dtype, storage.numel, start)
    return np.lib.stride_tricks.as_strided(
        flat[offset:], size, [s * flat.itemsize for s in stride], writeable=False
    )


# --- writing --------------------------------------------------------------------------


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
