"""Tensors in pickles (`pickle.dump` of PyTorch tensors, as MMSA-FET writes with `return_type="pt"`), without running PyTorch's unpickler.

A pickled tensor is `_rebuild_tensor_v2(storage, offset, size, stride, ...)`; its storage is a file of `torch.save` in the format before
1.6: four small pickles, the fourth of which says type and size, then a list of keys, and the numbers at the end.
"""

import io
import pickle
import pickletools
from typing import Any

import numpy as np

from finetune.corpora.mapped_file import FileSlice

HEADER = 4096
"""Bytes that contain the small pickles; they take about 300."""
HEADER_PICKLES = 4
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


def rebuild_tensor(storage: object, offset: object, size: object, stride: object, *_rest: object) -> np.ndarray:
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
    if last >= len(values) or np.prod(size, dtype=object) > len(values):
        raise pickle.UnpicklingError("a tensor of another size than its content")
    steps = [step * values.itemsize for step in stride]
    array = np.lib.stride_tricks.as_strided(values[offset:], size, steps, writeable=False)
    if storage.bfloat16:  # the upper half of a float32
        array = (array.astype("<u4") << 16).view("<f4")
    return array


def empty_dictionary(*_arguments: Any) -> dict[Any, Any]:
    """`collections.OrderedDict` and `defaultdict` before their items are set."""
    return {}


class TypeName:
    """Stands for a builtin type as an argument of `defaultdict`; it cannot be called."""


ADMITTED: dict[tuple[str, str], Any] = {
    ("torch._utils", "_rebuild_tensor_v2"): rebuild_tensor,
    ("torch.storage", "_load_from_bytes"): load_storage,
    ("collections", "OrderedDict"): empty_dictionary,
    ("collections", "defaultdict"): empty_dictionary,
    **{(module, name): TypeName() for module in ("builtins", "__builtin__") for name in ("list", "dict", "int", "float", "str")},
}
