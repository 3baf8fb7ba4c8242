"""Long contents of a pickle that stay in their file: where they lie, instead of their bytes."""

import codecs
import tempfile
from pathlib import Path

import numpy as np

from finetune.corpora.mapped_file import MappedFile

CHUNK = 1 << 20


class FileSlice:
    """`size` bytes of a file from `offset` on; an array of them looks into the mapped file."""

    def __init__(self, file: MappedFile, offset: int, size: int):
        self.file, self.offset, self.size = file, offset, size

    def array(self, dtype: np.dtype, count: int) -> np.ndarray:
        """The first numbers of it, [count], read-only; nothing is copied."""
        return self.file.array(dtype, self.offset, count)

    def __bytes__(self) -> bytes:
        return self.array(np.dtype(np.uint8), self.size).tobytes()

    def __str__(self) -> str:
        return bytes(self).decode("utf-8", errors="replace")


class FileText(FileSlice):
    """The same of a text in UTF-8: old protocols write the bytes of arrays so."""

    def latin1(self, scratch: Path | None) -> FileSlice:
        """The bytes that the text stands for, one a character, in a nameless file in `scratch` (None: the system's own place).

        Raises:
            UnicodeError: it is no such text.
        """
        decoder = codecs.getincrementaldecoder("utf-8")()
        with tempfile.NamedTemporaryFile(dir=scratch) as file:
            size = 0
            for start in range(0, self.size, CHUNK):
                length = min(CHUNK, self.size - start)
                raw = self.file.array(np.uint8, self.offset + start, length).tobytes()
                self.file.touched(length)
                size += file.write(decoder.decode(raw, final=start + length == self.size).encode("latin1"))
            file.flush()
            written = FileSlice(MappedFile(Path(file.name)), 0, size)
            written.array(np.dtype(np.uint8), 0)  # open it while it has a name
            return written
