"""The pickle inside PyTorch's checkpoints, read without trust and without PyTorch.

A pickle can call any function of the machine that reads it.  Here it may name only what
`_ALLOWED` lists; everything else is refused by its name and never imported.  Nor may a
small file fill the memory: a pickle can name one object many times, so nothing here
copies, prints or repeats an object of unknown size.
"""

import io
import pickle
import pickletools
from collections.abc import Callable
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
_MAX_AXES = 64  # of a numpy array
_MAX_BYTES = 1000  # a pickled number has 16 at most


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


class _Dict(dict):
    """Stands for OrderedDict; has no attributes that a pickle could set."""

    __slots__ = ()

    def __setstate__(self, state):
        """Drops the state, `_metadata` of a state_dict: no weights are in it."""


class _NumpyType:
    """Stands for the numpy.dtype of a pickled number."""

    __slots__ = ("name",)

    def __init__(self, code, *_):
        if not (isinstance(code, str) and code[:1] in "fiub" and len(code) == 2):
            raise ValueError(f"numpy type {shown(code)}")
        self.name = code

    def __setstate__(self, state):
        if state[1] in ("<", ">", "|"):
            self.name = state[1] + self.name[-2:]


def _number(kind, data):
    if isinstance(data, str):  # written by Python 2
        data = data.encode("latin1")
    return np.frombuffer(data, np.dtype(kind.name), 1)[0]


def _encode(text, encoding):
    if encoding != "latin1" or len(text) > _MAX_BYTES:
        raise ValueError("bytes that are no number's")
    return text.encode("latin1")


def _dict(pairs=()):
    new = _Dict(pairs)
    if pairs:  # a list by Python 2, for one call; many would each make a copy of it
        pairs.clear()
    return new


def _device(kind, index=None):
    if not (isinstance(kind, str) and isinstance(index, int | None)):
        raise ValueError("a device without a name")
    text = kind if index is None else f"{kind}:{index}"
    if len(text) > 40:
        raise ValueError("a device with a long name")
    return text


def _integers_of(values=()):
    if not (
        isinstance(values, tuple | list)
        and len(values) <= _MAX_AXES
        and all(isinstance(value, int) for value in values)
    ):
        raise ValueError("a size that is not some integers")
    return tuple(values)


def _tensor(storage, offset, size, stride, *_):
    if not (isinstance(storage, Storage) and isinstance(offset, int)):
        raise ValueError("a tensor without a storage")
    return _Tensor(storage, offset, _integers_of(size), _integers_of(stride))


_ALLOWED = {
    "collections.OrderedDict": _Call(_dict),
    "torch._utils._rebuild_tensor": _Call(_tensor),
    "torch._utils._rebuild_tensor_v2": _Call(_tensor),
    "torch._utils._rebuild_parameter": _Call(lambda tensor, *_: tensor),
    "torch.Size": _Call(_integers_of),
    "torch.device": _Call(_device),
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
                f"{self.path} asks for {shown(f'{module}.{name}')}, which no network's "
                "weights need; it was not run: save the state_dict alone, or do not "
                "trust this file."
            ) from None

    def persistent_load(self, saved_id):
        kind, name, key, _, numel, *view = saved_id
        if kind != "storage" or not isinstance(name, str) or name not in _STORAGES:
            raise ValueError(f"unknown storage {shown(name)}")
        if not (isinstance(key, str | int) and isinstance(numel, int)):
            raise ValueError("a storage without a name or a length")
        if any(view) or numel < 0:
            raise ValueError(f"storage {shown(key)} is a view or negative")
        storage = Storage(np.dtype(_STORAGES[name]), str(key), numel)
        known = self.storages.setdefault(storage.key, storage)
        if known != storage:
            raise ValueError(f"two descriptions of storage {shown(key)}")
        return known


def shown(value: object) -> str:
    """A value out of a file as a few printable characters of one line."""
    if isinstance(value, str):
        return ascii(value[:80])
    if isinstance(value, int) and abs(value) < 2**63:
        return str(value)
    return f"a {type(value).__name__}"


def damaged(path: Path, reason: object) -> UserError:
    """The sentence about a file whose inside contradicts itself."""
    # Names from the file may be in it, with line breaks and codes for the terminal.
    text = "".join(c if " " <= c <= "~" else ascii(c)[1:-1] for c in str(reason)[:200])
    return UserError(
        f"{path} is truncated, damaged or no checkpoint ({text[:200]}): copy or "
        "download it again."
    )


@contextmanager
def one_sentence(path: Path):
    """Whatever reading a damaged or hostile file raises becomes a UserError."""
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
    with one_sentence(path):
        unpickler = _Unpickler(io.BytesIO(_next_pickle(stream)), path)
        return unpickler.load(), unpickler.storages


def _next_pickle(stream) -> bytes:
    """One whole pickle from `stream`, whose numbers cannot ask for much memory."""
    start = stream.tell()
    index = 0
    # Also compares the length of every string with the bytes that are there, which
    # `pickle` would make room for first.
    for opcode, argument, _ in pickletools.genops(stream):
        if opcode.name in ("PUT", "BINPUT", "LONG_BINPUT"):
            index = max(index, argument)
    length = stream.tell() - start
    if index > length:  # `pickle` makes a table of this size
        raise ValueError(f"{length} bytes name object {shown(index)}")
    stream.seek(start)
    return stream.read(length)


def fill_tensors(
    saved: Any, path: Path, find: Callable[[Storage], tuple[Any, int]]
) -> Any:
    """The same object with an array in the place of every tensor, a view if possible.

    Args:
      saved: from `load_pickle`; its lists are changed, its dicts become plain ones.
      path: for messages.
      find: storage -> (buffer, first byte in it).

    Raises:
      UserError: a tensor reaches outside of its storage or repeats its numbers.
    """
    with one_sentence(path):
        return _fill(saved, (), path, find, {})


def _fill(node, keys, path, find, seen):
    if id(node) in seen:  # shared by two others, or by itself
        return seen[id(node)][1]
    new = {} if isinstance(node, dict) else node
    seen[id(node)] = node, new  # the node keeps the id from being given again
    if isinstance(node, dict):
        for key, value in node.items():
            new[key] = _fill(value, (*keys, key), path, find, seen)
    elif isinstance(node, list) or type(node) is tuple:
        items = [_fill(v, (*keys, i), path, find, seen) for i, v in enumerate(node)]
        if isinstance(node, list):
            node[:] = items
        else:
            new = tuple(items)
    elif isinstance(node, _Tensor):
        new = _array(node, keys, path, find)
    seen[id(node)] = node, new
    return new


def _array(tensor, keys, path, find):
    storage, offset, size, stride = tensor
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    name = "".join(f"[{shown(key)}]" for key in keys)[-100:]
    if min((offset, *size, *stride)) < 0 or (0 not in size and last >= storage.numel):
        raise damaged(
            path, f"tensor {name} reaches outside of its storage {shown(storage.key)}"
        )
    if prod(size) > storage.numel:
        # A few bytes would become any number of numbers as soon as they are copied.
        raise UserError(
            f"{path} has a tensor {name} with more elements than numbers saved for it "
            "(expanded?): save a contiguous copy of it."
        )
    buffer, start = find(storage)
    flat = np.frombuffer(buffer, storage.dtype, storage.numel, start)
    return np.lib.stride_tricks.as_strided(
        flat[offset:], size, [s * flat.itemsize for s in stride], writeable=False
    )
