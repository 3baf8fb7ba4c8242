"""Safe reading of pickles from the web: numpy arrays and builtin containers only, nothing that could run code.

A pickle is a program. This reader is Python's own unpickler with three changes: names resolve to the stand-ins below and nothing else;
objects are filled by the checks of these stand-ins (numpy's `dtype.__setstate__` trusts its input, so it is never called); and sizes
are compared with the file's before memory is allocated.

Arrays take no memory: their bytes stay in the file, which is memory-mapped (except protocol 0, a text format).
"""

import io
import os
import pickle
import re
import struct
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, Literal

import numpy as np

from finetune.corpora.mapped_file import FileSlice, FileText, MappedFile
from skesl_mug.errors import UserError

MAPPED_BYTES, MAPPED_TEXT = 16 << 10, 1 << 20
"""Bytes and text of these sizes or more stay in the file; transcripts are shorter."""
_PLAIN_DTYPE = re.compile(r"\??|[biufc](1|2|4|8|16)|[SU]\d{1,7}")
_PLAIN_KEY = (str, bytes, int, float, bool, type(None))
OTHER_FORMATS = {b"PK\x03\x04": "a zip file (perhaps made by torch.save)", b"\x89HDF": "an HDF5 file", b"\x1f\x8b": "a gzip file"}
_HINTS = {
    "pandas": "save plain numpy arrays instead (`frame.to_numpy()`)",
    "torch": "save plain numpy arrays instead (`tensor.numpy()`)",
}


class RefusedError(Exception):
    """A pickle contains more than arrays and containers."""


class _NdarrayName:
    """Stands for `numpy.ndarray` as an argument of `_reconstruct`."""


_NDARRAY = _NdarrayName()


class _Dtype:
    """Stands for `numpy.dtype`: keeps only the name and the byte order."""

    def __init__(self, name: str, *_flags: object):
        if not isinstance(name, str) or not (name.startswith("O") or _PLAIN_DTYPE.fullmatch(name)):
            raise RefusedError("an array of numpy type " + ascii(name)[:40])
        self.name = "O" if name.startswith("O") else name
        self.order: Literal["<", ">", "=", "|"] = "="

    def fill(self, state: object) -> None:
        if not isinstance(state, tuple) or len(state) < 5 or state[1] not in ("<", ">", "=", "|"):
            raise pickle.UnpicklingError("malformed array type")
        if any(part is not None for part in state[2:5]):
            raise RefusedError("a structured array")
        self.order = state[1]

    def real(self) -> np.dtype[Any]:
        return np.dtype(object) if self.name == "O" else np.dtype(self.name).newbyteorder(self.order)


class _Array(np.ndarray):
    """An array before it is filled, with a plain type, a shape and bytes that numpy checks against each other."""

    places: list[int]
    """Its places in the unpickler's memo."""

    def filled(self, state: object) -> np.ndarray:
        """Itself, filled; or another array if its bytes stay in the file."""
        if not isinstance(state, tuple) or len(state) not in (4, 5):
            raise pickle.UnpicklingError("malformed array")
        shape, dtype, fortran, raw = state[-4:]
        if not isinstance(dtype, _Dtype):
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


class _Memo(dict[int, Any]):
    """The unpickler's memo; an array records its places there, because it may be replaced when it is filled."""

    def __setitem__(self, place: int, value: Any) -> None:
        if isinstance(value, _Array):
            value.places.append(place)
        super().__setitem__(place, value)


def _from_file(raw: FileSlice, dtype: np.dtype[Any], shape: tuple[int, ...], order: Literal["C", "F"]) -> np.ndarray:
    if raw.size != dtype.itemsize * np.prod(shape, dtype=object):
        raise pickle.UnpicklingError("array content of another size than its shape")
    return raw.array(dtype, int(np.prod(shape, dtype=object))).reshape(shape, order=order)


def _shape(shape: object) -> tuple[int, ...]:
    if not isinstance(shape, tuple) or len(shape) > 8 or not all(isinstance(size, int) and 0 <= size < 2**40 for size in shape):
        raise pickle.UnpicklingError("malformed array shape")
    return shape


def _reconstruct(kind: object, _shape: object = (), _code: object = b"b") -> _Array:
    if kind is not _NDARRAY:
        raise pickle.UnpicklingError("malformed array")
    array = _Array((0,), np.int8)
    array.places = []
    return array


def _from_buffer(buffer: object, dtype: object, shape: object, order: object = "C") -> np.ndarray:
    known = isinstance(buffer, (bytes, bytearray, FileSlice))
    if not known or not isinstance(dtype, _Dtype) or order not in ("C", "F", "A") or dtype.name == "O":
        raise pickle.UnpicklingError("malformed array")
    laid: Literal["C", "F"] = "F" if order == "F" else "C"
    if isinstance(buffer, FileSlice):
        return _from_file(buffer, dtype.real(), _shape(shape), laid)
    return np.asarray(np.frombuffer(buffer, dtype.real()).reshape(_shape(shape), order=laid))  # type: ignore[call-overload]


def _scalar(dtype: object, raw: object = b"") -> Any:
    if isinstance(raw, str):
        raw = raw.encode("latin1")
    if not isinstance(dtype, _Dtype) or not isinstance(raw, bytes) or dtype.name == "O":
        raise pickle.UnpicklingError("malformed number")
    return np.frombuffer(raw, dtype.real(), count=1)[0].item()


def _encode(text: object, encoding: object = "latin1", *, scratch: Path | None = None) -> bytes | FileSlice:
    if isinstance(text, FileText) and encoding in ("latin1", "latin-1"):
        return text.latin1(scratch)
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError("malformed bytes")
    return text.encode("latin1")


def _bytes(*arguments: object) -> bytes:
    if arguments and not (len(arguments) == 1 and isinstance(arguments[0], (bytes, FileSlice))):
        raise pickle.UnpicklingError("malformed bytes")
    return arguments[0] if arguments else b""  # type: ignore[return-value]


def _set(items: object = ()) -> set[Any]:
    if not isinstance(items, (list, tuple)):
        raise pickle.UnpicklingError("malformed set")
    _check_keys(items)
    return set(items)


def _admitted() -> dict[tuple[str, str], Any]:
    names: dict[tuple[str, str], Any] = {("numpy", "ndarray"): _NDARRAY, ("numpy", "dtype"): _Dtype, ("_codecs", "encode"): _encode}
    for core in ("numpy.core", "numpy._core"):  # before and after numpy 2.0
        names[(f"{core}.multiarray", "_reconstruct")] = _reconstruct
        names[(f"{core}.multiarray", "scalar")] = _scalar
        names[(f"{core}.numeric", "_frombuffer")] = _from_buffer
    for module in ("builtins", "__builtin__"):
        names[(module, "set")] = _set
        names[(module, "bytes")] = _bytes
    return names


ADMITTED = _admitted()


def _check_keys(keys: Any) -> None:
    """Check that keys are plain values: hashing a deeply nested tuple would overflow the stack."""
    if not all(isinstance(key, _PLAIN_KEY) for key in keys):
        raise pickle.UnpicklingError("a dictionary or set with keys other than text and numbers")


class _SizedFile:
    """The file; reads beyond its end fail before memory is allocated."""

    def __init__(self, file: BinaryIO, size: int):
        self._file, self._size = file, size

    def check(self, wanted: int) -> None:
        if wanted > self._size - self._file.tell():
            raise EOFError("the file ends too early")

    def read(self, size: int) -> bytes:
        self.check(size)
        return self._file.read(size)

    def readinto(self, buffer: bytearray) -> int:
        self.check(len(buffer))
        return int(self._file.readinto(buffer))  # type: ignore[attr-defined]

    def readline(self) -> bytes:
        return self._file.readline()

    def skip(self, size: int) -> int:
        """Skip some bytes; returns their offset."""
        self.check(size)
        place = self._file.tell()
        self._file.seek(size, os.SEEK_CUR)
        return place


# the Python implementation: the C implementation allocates a memo of the largest index in the file
_Base: Any = pickle._Unpickler


class SafeUnpickler(_Base):  # type: ignore[misc]
    """Python's unpickler with the restrictions of this module."""

    def __init__(self, file: BinaryIO, size: int, path: Path, scratch: Path | None):
        self._sized = _SizedFile(file, size)
        self._mapped, self._scratch = MappedFile(path), scratch
        super().__init__(self._sized, encoding="latin1")
        self.memo = _Memo()

    dispatch: ClassVar[dict[int, Callable[[Any], None]]] = dict(_Base.dispatch)

    def find_class(self, module: str, name: str) -> Any:
        """The stand-in for a name, or `RefusedError`."""
        try:
            admitted = ADMITTED[(module, name)]
            return partial(_encode, scratch=self._scratch) if admitted is _encode else admitted
        except KeyError:
            hint = _HINTS.get(module.split(".")[0])
            shown = f"{module}.{name}"[:80].encode("unicode_escape").decode()
            raise RefusedError(f"`{shown}`" + (f"; {hint}" if hint else "")) from None

    def persistent_load(self, pid: object) -> Any:
        """References to outside the file are refused."""
        raise RefusedError("a reference to outside the file")

    def get_extension(self, code: int) -> None:
        """Registered extension codes are refused."""
        raise RefusedError("an extension code")

    def load_build(self) -> None:
        """Fill an array or its type; nothing else may have a state."""
        state = self.stack.pop()
        target = self.stack[-1]
        if not isinstance(target, (_Array, _Dtype)):
            raise RefusedError("an object with a state of its own")
        if isinstance(target, _Dtype):
            target.fill(state)
            return
        filled = target.filled(state)
        if filled is not target:
            self.stack[-1] = filled
            for place in target.places:
                if self.memo.get(place) is target:
                    self.memo[place] = filled

    def load_setitem(self) -> None:
        """Set one entry of a dictionary."""
        _check_keys(self.stack[-2:-1])
        self._checked(_Base.load_setitem, dict, -3)

    def load_setitems(self) -> None:
        """Set entries of a dictionary."""
        _check_keys(self.stack[0::2])
        self._checked(_Base.load_setitems, dict, -1, marked=True)

    def load_dict(self) -> None:
        """Make a dictionary (protocol 0)."""
        _check_keys(self.stack[0::2])
        _Base.load_dict(self)

    def load_additems(self) -> None:
        """Add items to a set."""
        _check_keys(self.stack)
        self._checked(_Base.load_additems, set, -1, marked=True)

    def load_frozenset(self) -> None:
        """Make a frozen set."""
        _check_keys(self.stack)
        _Base.load_frozenset(self)

    def load_append(self) -> None:
        """Append to a list."""
        self._checked(_Base.load_append, list, -2)

    def load_appends(self) -> None:
        """Append several items to a list."""
        self._checked(_Base.load_appends, list, -1, marked=True)

    def load_binbytes(self) -> None:
        """Bytes."""
        self._load_long("<I", FileSlice, MAPPED_BYTES, lambda raw: raw)

    def load_binbytes8(self) -> None:
        """Bytes, with a longer length."""
        self._load_long("<Q", FileSlice, MAPPED_BYTES, lambda raw: raw)

    def load_binstring(self) -> None:
        """Bytes that Python 2 wrote as a string."""
        self._load_long("<I", FileSlice, MAPPED_BYTES, lambda raw: raw.decode("latin1"))

    def load_binunicode(self) -> None:
        """Text, or in old protocols the bytes of an array."""
        self._load_long("<I", FileText, MAPPED_TEXT, lambda raw: str(raw, "utf-8", "surrogatepass"))

    def load_binunicode8(self) -> None:
        """Text, with a longer length."""
        self._load_long("<Q", FileText, MAPPED_TEXT, lambda raw: str(raw, "utf-8", "surrogatepass"))

    def _load_long(self, length: str, kind: type[FileSlice], limit: int, plain: Callable[[bytes], object]) -> None:
        (size,) = struct.unpack(length, self.read(struct.calcsize(length)))
        if size >= limit and not self._framed():
            self.append(kind(self._mapped, self._sized.skip(size), size))
        else:
            self.append(plain(self.read(size)))

    def load_bytearray8(self) -> None:
        """Read a bytearray, its size checked before it is made."""
        (size,) = struct.unpack("<Q", self.read(8))
        if size >= MAPPED_BYTES and not self._framed():
            self.append(FileSlice(self._mapped, self._sized.skip(size), size))
            return
        self._sized.check(size - self._framed())
        buffer = bytearray(size)
        self.readinto(buffer)
        self.append(buffer)

    def _framed(self) -> int:
        frame: io.BytesIO | None = self._unframer.current_frame
        return len(frame.getbuffer()) - frame.tell() if frame else 0

    def _checked(self, load: Callable[[Any], None], kind: type, place: int, marked: bool = False) -> None:
        target = (self.metastack[-1] if marked else self.stack)[place]
        if type(target) is not kind:
            raise pickle.UnpicklingError(f"items added to something that is not a {kind.__name__}")
        load(self)


for _code, _load in (
    (pickle.BUILD, SafeUnpickler.load_build),
    (pickle.SETITEM, SafeUnpickler.load_setitem),
    (pickle.SETITEMS, SafeUnpickler.load_setitems),
    (pickle.DICT, SafeUnpickler.load_dict),
    (pickle.ADDITEMS, SafeUnpickler.load_additems),
    (pickle.FROZENSET, SafeUnpickler.load_frozenset),
    (pickle.APPEND, SafeUnpickler.load_append),
    (pickle.APPENDS, SafeUnpickler.load_appends),
    (pickle.BYTEARRAY8, SafeUnpickler.load_bytearray8),
    (pickle.BINBYTES, SafeUnpickler.load_binbytes),
    (pickle.BINBYTES8, SafeUnpickler.load_binbytes8),
    (pickle.BINSTRING, SafeUnpickler.load_binstring),
    (pickle.BINUNICODE, SafeUnpickler.load_binunicode),
    (pickle.BINUNICODE8, SafeUnpickler.load_binunicode8),
):
    SafeUnpickler.dispatch[_code[0]] = _load


def load_pickle(path: str | Path, scratch: Path | None = None) -> Any:
    """Read a pickle of numpy arrays, builtin containers, text and numbers.

    numpy scalars become Python numbers; arrays are (a subclass of) `numpy.ndarray`, long ones read-only and mapped from the file.
    Long bytes or text outside an array become a `FileSlice`. `scratch` is a folder for the bytes of arrays that protocols 1 and 2 wrote
    as text.

    Raises:
        UserError: the file cannot be read, is not a pickle or damaged, or contains anything else, which could run code.
    """
    path = Path(path)
    try:
        with open(path, "rb") as file:
            head = file.read(8)
            file.seek(0)
            other = next((name for start, name in OTHER_FORMATS.items() if head.startswith(start)), None)
            if other:
                raise UserError(f"{path}: is {other}, not a pickle; choose the pickle of features")
            return SafeUnpickler(file, os.fstat(file.fileno()).st_size, path, scratch).load()
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from error
    except RefusedError as error:
        raise UserError(f"{path}: was not loaded: it contains more than arrays and containers, which could run code: {error}") from error
    except Exception as error:  # whatever a damaged pickle causes in the unpickler
        reason = f"{type(error).__name__}: {str(error)[:80]}".rstrip(": ").encode("unicode_escape").decode()
        raise UserError(f"{path}: not a pickle, or damaged ({reason}); download it again") from error
