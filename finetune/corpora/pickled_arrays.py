"""Stand-ins for numpy's arrays, types and scalars in a pickle: every argument is checked before numpy sees it."""

import pickle
import re
from collections.abc import Iterable
from typing import Any, Literal

import numpy as np

from finetune.corpora.mapped_file import FileSlice

_PLAIN_DTYPE = re.compile(r"\??|[biufc](1|2|4|8|16)|[SU]\d{1,7}")

_PLAIN_KEY = (str, bytes, int, float, bool, type(None))


class RefusedError(Exception):
    """A pickle contains more than arrays and containers."""


class ContentError(Exception):
    """A fault that its message explains completely, after the file's name."""


def check_keys(keys: Iterable[object]) -> None:
    """Check that keys are plain values: hashing a deeply nested tuple would overflow the stack."""
    if not all(isinstance(key, _PLAIN_KEY) for key in keys):
        raise pickle.UnpicklingError("a dictionary or set with keys other than text and numbers")


class NdarrayName:
    """Stands for `numpy.ndarray` as an argument of `_reconstruct`."""


NDARRAY = NdarrayName()


class PickledDtype:
    """Stands for `numpy.dtype`: keeps only the name and the byte order."""

    def __init__(self, name: str, *_flags: object):
        if not isinstance(name, str) or not (name.startswith("O") or _PLAIN_DTYPE.fullmatch(name)):
            raise RefusedError("an array of numpy type " + ascii(name)[:40])
        self.name = "O" if name.startswith("O") else name
        self.order: Literal["<", ">", "=", "|"] = "="

    def fill(self, state: object) -> None:
        """Keep the byte order of `dtype.__setstate__`'s argument; structured types are refused."""
        if not isinstance(state, tuple) or len(state) < 5 or state[1] not in ("<", ">", "=", "|"):
            raise pickle.UnpicklingError("malformed array type")
        if any(part is not None for part in state[2:5]):
            raise RefusedError("a structured array")
        self.order = state[1]

    def real(self) -> np.dtype[Any]:
        """The type."""
        return np.dtype(object) if self.name == "O" else np.dtype(self.name).newbyteorder(self.order)


class PickledArray(np.ndarray):
    """An array before it is filled, with a plain type, a shape and bytes that numpy checks against each other."""

    places: list[int]
    """Its places in the unpickler's memo."""

    def filled(self, state: object) -> np.ndarray:
        """Itself, filled; or another array if its bytes stay in the file."""
        if not isinstance(state, tuple) or len(state) not in (4, 5):
            raise pickle.UnpicklingError("malformed array")
        shape, dtype, fortran, raw = state[-4:]
        if not isinstance(dtype, PickledDtype):
            raise pickle.UnpicklingError("malformed array type")
        real = dtype.real()
        if isinstance(raw, str):  # written by Python 2
            raw = raw.encode("latin1")
        if isinstance(raw, FileSlice) and not real.hasobject:
            return _from_file(raw, real, _shape(shape), "F" if fortran else "C")
        if not isinstance(raw, list if real.hasobject else bytes):
            raise pickle.UnpicklingError("malformed array content")
        shape = _shape(shape)
        length = len(raw) if real.hasobject else len(raw) // max(1, real.itemsize)
        if length != np.prod(shape, dtype=object):
            raise pickle.UnpicklingError("array content of another size than its shape")
        super().__setstate__((1, shape, real, bool(fortran), raw))  # type: ignore[arg-type]  # its stub expects numpy's bool
        return self


def _from_file(raw: FileSlice, dtype: np.dtype[Any], shape: tuple[int, ...], order: Literal["C", "F"]) -> np.ndarray:
    if raw.size != dtype.itemsize * np.prod(shape, dtype=object):
        raise pickle.UnpicklingError("array content of another size than its shape")
    return raw.array(dtype, int(np.prod(shape, dtype=object))).reshape(shape, order=order)


def _shape(shape: object) -> tuple[int, ...]:
    if not isinstance(shape, tuple) or len(shape) > 8 or not all(isinstance(size, int) and 0 <= size < 2**40 for size in shape):
        raise pickle.UnpicklingError("malformed array shape")
    return shape


def reconstruct(kind: object, _shape: object = (), _code: object = b"b") -> PickledArray:
    """`numpy.core.multiarray._reconstruct`: an array to be filled."""
    if kind is not NDARRAY:
        raise pickle.UnpicklingError("malformed array")
    array = PickledArray((0,), np.int8)
    array.places = []
    return array


def from_buffer(buffer: object, dtype: object, shape: object, order: object = "C") -> np.ndarray:
    """`numpy.core.numeric._frombuffer`: an array of protocol 5."""
    known = isinstance(buffer, (bytes, bytearray, FileSlice))
    if not known or not isinstance(dtype, PickledDtype) or order not in ("C", "F", "A") or dtype.name == "O":
        raise pickle.UnpicklingError("malformed array")
    laid: Literal["C", "F"] = "F" if order == "F" else "C"
    if isinstance(buffer, FileSlice):
        return _from_file(buffer, dtype.real(), _shape(shape), laid)
    return np.asarray(np.frombuffer(buffer, dtype.real()).reshape(_shape(shape), order=laid))  # type: ignore[call-overload]


def scalar(dtype: object, raw: object = b"") -> Any:
    """`numpy.core.multiarray.scalar` as a Python number or text."""
    if isinstance(raw, str):
        raw = raw.encode("latin1")
    if not isinstance(dtype, PickledDtype) or not isinstance(raw, bytes) or dtype.name == "O":
        raise pickle.UnpicklingError("malformed number")
    return np.frombuffer(raw, dtype.real(), count=1)[0].item()
