"""Tensors, files of torch.save and compressed files: what is refused, and in which words; dictionaries of Python 2."""

import gzip
import io
import pickle
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from finetune.corpora import mapped_file, torch_pickle
from finetune.corpora.safe_pickle import load_pickle
from skesl_mug.errors import UserError

FEATURES = {"train": {"audio": torch.arange(6.0).reshape(2, 3)}}


def write(folder: Path, raw: bytes) -> Path:
    path = folder / "corpus.pkl"
    path.write_bytes(raw)
    return path


def saved(content: object, **options: bool) -> bytes:
    stream = io.BytesIO()
    torch.save(content, stream, **options)
    return stream.getvalue()


class SameStorage:
    """A tensor over the first numbers of one storage."""

    def __init__(self, storage, count, stride=1):
        self.rest = (storage, 0, (count,), (stride,), False, {})

    def __reduce__(self):
        return torch._utils._rebuild_tensor_v2, self.rest


@pytest.mark.parametrize("dump", [pickle.dumps, saved])
def test_bfloat16_numbers_that_are_used_often_are_refused(tmp_path, monkeypatch, dump):
    monkeypatch.setattr(torch_pickle, "WIDENED_LEAST", 0)
    storage = torch.ones(50_000, dtype=torch.bfloat16)
    kind = storage._typed_storage()
    once = load_pickle(write(tmp_path, dump([SameStorage(kind, 50_000)])))
    np.testing.assert_array_equal(once[0], np.ones(50_000, np.float32))
    with pytest.raises(UserError, match=r"its bfloat16 tensors take more than 4 times its size as float32; save them with `\.float\(\)`"):
        load_pickle(write(tmp_path, dump([SameStorage(kind, 50_000) for _ in range(9)])))


def deflated(raw: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("corpus/data.pkl", raw)
    return stream.getvalue()


@pytest.mark.parametrize("compress", [gzip.compress, deflated])
def test_compressed_files_have_a_limit(tmp_path, monkeypatch, compress):
    monkeypatch.setattr(mapped_file, "UNPACKED_LEAST", 1 << 20)
    path = write(tmp_path, compress(pickle.dumps(np.zeros(500_000))))
    with pytest.raises(UserError, match=r"holds more than 100 times its size; if you trust it, decompress it"):
        load_pickle(path, tmp_path)
    monkeypatch.setattr(mapped_file, "UNPACKED_LEAST", 8 << 20)
    assert len(load_pickle(path, tmp_path)) == 500_000
    monkeypatch.setattr("shutil.disk_usage", lambda _folder: SimpleNamespace(free=1000))
    with pytest.raises(UserError, match=r"larger than the 1,000 bytes that are free"):
        load_pickle(path, tmp_path)
    assert list(tmp_path.iterdir()) == [path]


def test_ordered_dictionaries_of_python_2(tmp_path):
    """Python 2 passes the items as an argument."""
    raw = b"\x80\x02ccollections\nOrderedDict\n](](U\x05train}U\x05labelK\x01se](U\x04testK\x02ee\x85R."
    assert load_pickle(write(tmp_path, raw)) == {"train": {"label": 1}, "test": 2}
    for pairs in (b"](](NNNee", b"](](N)e](]Nee", b"K\x01"):
        with pytest.raises(UserError, match="not a pickle, or damaged"):
            load_pickle(write(tmp_path, b"\x80\x02ccollections\nOrderedDict\n" + pairs + b"\x85R."))


def test_old_cut_and_compressed_files_of_torch_save(tmp_path):
    raw = saved(FEATURES)
    for compress in (gzip.compress, bytes):
        read = load_pickle(write(tmp_path, compress(raw)), tmp_path)
        np.testing.assert_array_equal(read["train"]["audio"], FEATURES["train"]["audio"])
        with pytest.raises(UserError, match=r"is a zip file, as torch\.save writes, whose end is missing; download it again"):
            load_pickle(write(tmp_path, compress(raw[:-200])))
        with pytest.raises(UserError, match=r"format before PyTorch 1\.6; open it with torch\.load"):
            load_pickle(write(tmp_path, compress(saved(FEATURES, _use_new_zipfile_serialization=False))))


@pytest.mark.parametrize("dump", [pickle.dumps, saved])
def test_parameters_and_expanded_tensors(tmp_path, dump):
    parameter = load_pickle(write(tmp_path, dump(torch.nn.Parameter(torch.arange(3.0)))))
    np.testing.assert_array_equal(parameter, np.arange(3.0))
    with pytest.raises(UserError, match=r"contains an expanded tensor, which repeats its numbers; save it with `\.contiguous\(\)`"):
        load_pickle(write(tmp_path, dump(torch.ones(1, 3).expand(4, 3))))


def test_a_parameter_of_something_else_is_refused(tmp_path):
    raw = b"\x80\x02ctorch._utils\n_rebuild_parameter\n}\x85R."
    with pytest.raises(UserError, match="malformed tensor"):
        load_pickle(write(tmp_path, raw))
