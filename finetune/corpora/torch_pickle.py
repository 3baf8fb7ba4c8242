"""Tensors in pickles (`pickle.dump` of PyTorch tensors, as MMSA-FET writes with `return_type="pt"`) and in files of `torch.save`, without
running PyTorch's unpickler.

A file of `torch.save` is a zip file of a pickle and one entry for each storage. A pickled tensor is `_rebuild_tensor_v2(storage, offset,
size, stride, ...)`; its storage is a file of `torch.save` in the format before 1.6: four small pickles, the fourth of which says type and
size, then a list of keys, and the numbers at the end.
"""

import io
import pickle
import pickletools
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from finetune.corpora.mapped_file import FileSlice, MappedFile
from finetune.corpora.pickled_arrays import ContentError, check_keys

HEADER = 4096
"""Bytes that contain the small pickles; they take about 300."""
HEADER_PICKLES = 4
WIDENED, WIDENED_LEAST = 4, 16 << 20
"""How many times the file's size its bfloat16 numbers may take as float32, which is 2 if each is used once; any may take the second."""
DTYPES = {
    "Float": "f4", "Double": "f8", "Half": "f2", "BFloat16": "u2", "Long": "i8", "Int": "i4", "Short": "i2", "Char": "i1",
    "Byte": "u1", "Bool": "?",
}  # fmt: skip
INTEGERS = ("BININT", "BININT1", "BININT2", "LONG1", "INT", "LONG")


class Storage:
    """The numbers of a tensor, not copied from the file."""

    def __init__(self, values: np.ndarray, bfloat16: bool):
        self.values, self.bfloat16 = values, bfloat16


def load_storage(raw: object) -> Storage:
    """`torch.storage._load_from_bytes`.

    Raises:
        UnpicklingError: the bytes are damaged, or not a storage of plain numbers.
    """
    if not isinstance(raw, (bytes, FileSlice)):
        raise pickle.UnpicklingError("malformed tensor")
    size = raw.size if isinstance(raw, FileSlice) else len(raw)
    head = raw.array(np.dtype(np.uint8), min(size, HEADER)).tobytes() if isinstance(raw, FileSlice) else raw[:HEADER]
    stream, kind, count = io.BytesIO(head), "", -1
    try:
        for _ in range(HEADER_PICKLES):
            kind, count = "", -1
            for operation, argument, _place in pickletools.genops(stream):
                if operation.name == "GLOBAL" and str(argument).startswith("torch "):
                    kind = str(argument).removeprefix("torch ").removesuffix("Storage")
                elif operation.name in INTEGERS:
                    count = int(str(argument))
    except Exception as error:  # whatever damaged bytes cause
        raise pickle.UnpicklingError("malformed tensor") from error
    if kind not in DTYPES or count < 0:
        raise pickle.UnpicklingError("malformed tensor")
    dtype = np.dtype(DTYPES[kind]).newbyteorder("<")
    start = size - count * dtype.itemsize
    if start < stream.tell():
        raise pickle.UnpicklingError("a tensor of another size than its content")
    if isinstance(raw, FileSlice):
        values = FileSlice(raw.file, raw.offset + start, size - start).array(dtype, count)
    else:
        values = np.frombuffer(raw, dtype, count, start)
    return Storage(values, kind == "BFloat16")


class StorageKind:
    """Stands for `torch.FloatStorage` and the like."""

    def __init__(self, name: str):
        self.name = name


class TorchFile:
    """A file of `torch.save`: its pickle, and the storages that the pickle refers to.

    Raises:
        UnpicklingError: it is a zip file of another kind, or compressed.
    """

    def __init__(self, path: Path):
        self.path, self._map = path, MappedFile(path)
        with zipfile.ZipFile(path) as archive:
            self._entries = {entry.filename: entry for entry in archive.infolist()}
        self.pickle = next((name for name in self._entries if name.rsplit("/", 1)[-1] == "data.pkl"), "")

    def storage(self, reference: object) -> Storage:
        """The storage of a reference ("storage", type, key, device, numbers)."""
        if not isinstance(reference, tuple) or len(reference) < 5 or not isinstance(reference[1], StorageKind):
            raise pickle.UnpicklingError("malformed tensor")
        _, kind, key, _, count = reference[:5]
        entry = self._entries.get(f"{self.pickle.removesuffix('data.pkl')}data/{key}")
        dtype = np.dtype(DTYPES[kind.name]).newbyteorder("<")
        if entry is None or entry.compress_type != zipfile.ZIP_STORED or type(count) is not int or count * dtype.itemsize > entry.file_size:
            raise pickle.UnpicklingError("a tensor of another size than its content")
        with open(self.path, "rb") as file:
            file.seek(entry.header_offset)
            name_size, extra_size = struct.unpack("<HH", file.read(30)[26:])
        offset = entry.header_offset + 30 + name_size + extra_size
        return Storage(self._map.array(dtype, offset, count), kind.name == "BFloat16")


class Budget:
    """Bytes for bfloat16 numbers as float32, the only ones that are copied; a pickle may name the same numbers often."""

    def __init__(self, size: int):
        self.left = max(WIDENED * size, WIDENED_LEAST)

    def take(self, size: int) -> None:
        """Reserve bytes; ContentError if there are not enough."""
        self.left -= size
        if self.left < 0:
            raise ContentError(f"its bfloat16 tensors take more than {WIDENED} times its size as float32; save them with `.float()`")


def rebuild_tensor(budget: Budget, storage: object, offset: object, size: object, stride: object, *_rest: object) -> np.ndarray:
    """`torch._utils._rebuild_tensor_v2` as a numpy array.

    Raises:
        UnpicklingError: the tensor reaches beyond its storage, or is larger.
    """
    if not isinstance(storage, Storage) or not isinstance(size, tuple) or not isinstance(stride, tuple) or len(size) != len(stride):
        raise pickle.UnpicklingError("malformed tensor")
    if len(size) > 8 or not all(type(number) is int and 0 <= number < 2**40 for number in (offset, *size, *stride)):
        raise pickle.UnpicklingError("malformed tensor")
    assert isinstance(offset, int)
    values = storage.values
    if 0 in size:
        return np.zeros(size, np.float32 if storage.bfloat16 else values.dtype)
    last = offset + sum((number - 1) * step for number, step in zip(size, stride, strict=True))
    if last >= len(values):
        raise pickle.UnpicklingError("a tensor of another size than its content")
    if np.prod(size, dtype=object) > len(values):
        raise ContentError("contains an expanded tensor, which repeats its numbers; save it with `.contiguous()`")
    steps = [step * values.itemsize for step in stride]
    array = np.lib.stride_tricks.as_strided(values[offset:], size, steps, writeable=False)
    if storage.bfloat16:
        budget.take(4 * array.size)
        array = (array.astype("<u4") << 16).view("<f4")  # the upper half of a float32
    return array


def rebuild_parameter(tensor: object, *_rest: object) -> np.ndarray:
    """`torch._utils._rebuild_parameter`: the parameter's numbers."""
    if not isinstance(tensor, np.ndarray):
        raise pickle.UnpicklingError("malformed tensor")
    return tensor


def ordered_dictionary(pairs: object = ()) -> dict[Any, Any]:
    """`collections.OrderedDict`; Python 2 passes its items, Python 3 sets them afterwards."""
    if not isinstance(pairs, (list, tuple)) or not all(isinstance(pair, (list, tuple)) and len(pair) == 2 for pair in pairs):
        raise pickle.UnpicklingError("malformed dictionary")
    check_keys(pair[0] for pair in pairs)
    return dict(pairs)


def default_dictionary(_factory: object = None, pairs: object = ()) -> dict[Any, Any]:
    """`collections.defaultdict` without its factory."""
    return ordered_dictionary(pairs)


class TypeName:
    """Stands for a builtin type as an argument of `defaultdict`; it cannot be called."""


ADMITTED: dict[tuple[str, str], Any] = {
    ("torch._utils", "_rebuild_tensor_v2"): rebuild_tensor,
    ("torch._utils", "_rebuild_parameter"): rebuild_parameter,
    ("torch.storage", "_load_from_bytes"): load_storage,
    **{("torch", f"{name}Storage"): StorageKind(name) for name in DTYPES},
    ("collections", "OrderedDict"): ordered_dictionary,
    ("collections", "defaultdict"): default_dictionary,
    **{(module, name): TypeName() for module in ("builtins", "__builtin__") for name in ("list", "dict", "int", "float", "str")},
}
