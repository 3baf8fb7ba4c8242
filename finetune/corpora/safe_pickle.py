"""Safe reading of pickles from the web: numpy arrays and builtin containers only, nothing that could run code.

A pickle is a program. This reader is Python's own unpickler with three changes: names resolve to the stand-ins below and nothing else;
objects are filled by the checks of these stand-ins (numpy's `dtype.__setstate__` trusts its input, so it is never called); and sizes
are compared with the file's before memory is allocated.

Arrays take no memory: their bytes stay in the file, which is memory-mapped (except protocol 0, a text format). A compressed file is
first decompressed beside the cache.
"""

import bz2
import gzip
import io
import lzma
import os
import pickle
import shutil
import struct
import tempfile
import zipfile
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, cast

import numpy as np

from finetune.corpora import torch_pickle
from finetune.corpora.mapped_file import UNPACKED, FileSlice, FileText, MappedFile, most_unpacked
from finetune.corpora.pickled_arrays import (
    NDARRAY,
    ContentError,
    PickledArray,
    PickledDtype,
    RefusedError,
    check_keys,
    from_buffer,
    reconstruct,
    scalar,
)
from skesl_mug.errors import UserError

MAPPED_BYTES, MAPPED_TEXT = 16 << 10, 1 << 20
"""Bytes and text of these sizes or more stay in the file; transcripts are shorter."""
ZIP, HDF5, HEAD = b"PK\x03\x04", b"\x89HDF", 32
OLD_TORCH = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
"""The number with which files of torch.save began before PyTorch 1.6."""
COMPRESSED: dict[bytes, Callable[[Path], Any]] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\x00": lzma.open}
_HINTS = {
    "pandas": "save plain numpy arrays instead (`frame.to_numpy()`)",
    "torch": "save plain numpy arrays instead (`tensor.numpy()`)",
}


class OldText(str):
    """A string of Python 2: its bytes as latin-1, because only its use shows whether they are text."""

    def __str__(self) -> str:
        raw = self.encode("latin1")
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError:
            return raw.decode("latin1")


class _Memo(dict[int, Any]):
    """The unpickler's memo; an array records its places there, because it may be replaced when it is filled."""

    def __setitem__(self, place: int, value: Any) -> None:
        if isinstance(value, PickledArray):
            value.places.append(place)
        super().__setitem__(place, value)


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
    check_keys(items)
    return set(items)


def _admitted() -> dict[tuple[str, str], Any]:
    names: dict[tuple[str, str], Any] = {("numpy", "ndarray"): NDARRAY, ("numpy", "dtype"): PickledDtype, ("_codecs", "encode"): _encode}
    for core in ("numpy.core", "numpy._core"):  # before and after numpy 2.0
        names[(f"{core}.multiarray", "_reconstruct")] = reconstruct
        names[(f"{core}.multiarray", "scalar")] = scalar
        names[(f"{core}.numeric", "_frombuffer")] = from_buffer
    for module in ("builtins", "__builtin__"):
        names[(module, "set")] = _set
        names[(module, "bytes")] = _bytes
    return names | torch_pickle.ADMITTED


ADMITTED = _admitted()


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

    def __init__(
        self,
        file: BinaryIO,
        size: int,
        path: Path,
        scratch: Path | None,
        budget: torch_pickle.Budget,
        storages: torch_pickle.TorchFile | None = None,
    ):
        self._budget, self._storages = budget, storages
        self._sized = _SizedFile(file, size)
        self._mapped, self._scratch = MappedFile(path), scratch
        super().__init__(self._sized, encoding="latin1")
        self.memo = _Memo()

    def open_map(self) -> None:
        """Open the file for arrays now, because it will be deleted."""
        self._mapped.array(np.uint8, 0, 0)

    dispatch: ClassVar[dict[int, Callable[[Any], None]]] = dict(_Base.dispatch)

    def find_class(self, module: str, name: str) -> Any:
        """The stand-in for a name, or `RefusedError`."""
        try:
            admitted = ADMITTED[(module, name)]
        except KeyError:
            hint = _HINTS.get(module.split(".")[0])
            shown = f"{module}.{name}"[:80].encode("unicode_escape").decode()
            raise RefusedError(f"`{shown}`" + (f"; {hint}" if hint else "")) from None
        if admitted is _encode:
            return partial(_encode, scratch=self._scratch)
        return partial(admitted, self._budget) if admitted is torch_pickle.rebuild_tensor else admitted

    def persistent_load(self, pid: object) -> Any:
        """A storage of a file of `torch.save`; other references to outside the file are refused."""
        if self._storages is not None:
            return self._storages.storage(pid)
        raise RefusedError("a reference to outside the file")

    def get_extension(self, code: int) -> None:
        """Registered extension codes are refused."""
        raise RefusedError("an extension code")

    def load_build(self) -> None:
        """Fill an array or its type; nothing else may have a state."""
        state = self.stack.pop()
        target = self.stack[-1]
        if not isinstance(target, (PickledArray, PickledDtype)):
            raise RefusedError("an object with a state of its own")
        if isinstance(target, PickledDtype):
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
        check_keys(self.stack[-2:-1])
        self._checked(_Base.load_setitem, dict, -3)

    def load_setitems(self) -> None:
        """Set entries of a dictionary."""
        check_keys(self.stack[0::2])
        self._checked(_Base.load_setitems, dict, -1, marked=True)

    def load_dict(self) -> None:
        """Make a dictionary (protocol 0)."""
        check_keys(self.stack[0::2])
        _Base.load_dict(self)

    def load_additems(self) -> None:
        """Add items to a set."""
        check_keys(self.stack)
        self._checked(_Base.load_additems, set, -1, marked=True)

    def load_frozenset(self) -> None:
        """Make a frozen set."""
        check_keys(self.stack)
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
        self._load_long("<I", FileSlice, MAPPED_BYTES, lambda raw: OldText(raw.decode("latin1")))

    def load_binunicode(self) -> None:
        """Text, or in old protocols the bytes of an array."""
        self._load_long("<I", FileText, MAPPED_TEXT, lambda raw: str(raw, "utf-8", "surrogatepass"))

    def load_binunicode8(self) -> None:
        """Text, with a longer length."""
        self._load_long("<Q", FileText, MAPPED_TEXT, lambda raw: str(raw, "utf-8", "surrogatepass"))

    def _decode_string(self, raw: bytes) -> str:
        return OldText(raw.decode("latin1"))

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


def _check_format(head: bytes, path: Path) -> None:
    """Name other formats than pickles and zip files."""
    if head.startswith(HDF5):
        raise ContentError("is an HDF5 file, not a pickle; write its content with pickle.dump")
    if head.startswith(ZIP) and not zipfile.is_zipfile(path):
        raise ContentError("is a zip file, as torch.save writes, whose end is missing; download it again")
    if OLD_TORCH in head:
        again = "open it with torch.load(FILE, weights_only=True) and save it again with torch.save"
        raise ContentError(f"is a file of torch.save in the format before PyTorch 1.6; {again}")


def _unpack(packed: Any, size: int, plain: Any) -> int:
    """Decompress a stream of `size` bytes into a file, up to a limit; returns the number of bytes."""
    most, free, written = most_unpacked(size), shutil.disk_usage(Path(plain.name).parent).free, 0
    while block := packed.read(1 << 20):
        written += len(block)
        if written > most:
            raise ContentError(f"holds more than {UNPACKED} times its size; if you trust it, decompress it and choose the result")
        if written > free:
            raise ContentError(f"decompressed, it is larger than the {free:,} bytes that are free in {Path(plain.name).parent}")
        plain.write(block)
    plain.flush()
    plain.seek(0)
    return written


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
        with ExitStack() as opened:
            plain: Any = opened.enter_context(open(path, "rb"))
            size, tensors = os.fstat(plain.fileno()).st_size, None
            head = plain.read(HEAD)
            decompress = next((decompress for start, decompress in COMPRESSED.items() if head.startswith(start)), None)
            if decompress is not None:
                plain = opened.enter_context(tempfile.NamedTemporaryFile(dir=scratch))
                size = _unpack(opened.enter_context(decompress(path)), size, plain)
                head = plain.read(HEAD)
            plain.seek(0)
            place, whole = Path(plain.name), size
            _check_format(head, place)
            if head.startswith(ZIP):
                tensors, archive = torch_pickle.TorchFile(place), opened.enter_context(zipfile.ZipFile(place))
                if not tensors.pickle:
                    raise ContentError("is a zip file, not a pickle; write its content with pickle.dump")
                packed = min(size, archive.getinfo(tensors.pickle).compress_size)
                plain = opened.enter_context(tempfile.NamedTemporaryFile(dir=scratch))
                size = _unpack(opened.enter_context(archive.open(tensors.pickle)), packed, plain)
            budget = torch_pickle.Budget(whole)
            unpickler = SafeUnpickler(cast(BinaryIO, plain), size, Path(plain.name), scratch, budget, tensors)
            if size:
                unpickler.open_map()  # before the file is deleted
            return unpickler.load()
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from error
    except ContentError as error:
        raise UserError(f"{path}: {error}") from error
    except RefusedError as error:
        raise UserError(f"{path}: was not loaded: it contains more than arrays and containers, which could run code: {error}") from error
    except Exception as error:  # whatever a damaged pickle causes in the unpickler
        reason = f"{type(error).__name__}: {str(error)[:80]}".rstrip(": ").encode("unicode_escape").decode()
        raise UserError(f"{path}: not a pickle, or damaged ({reason}); download it again") from error
