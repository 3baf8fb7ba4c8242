"""The unpickler for arrays and containers: what it reads, what it refuses, and damaged files."""

import bz2
import collections
import contextlib
import gzip
import io
import lzma
import os
import pickle
import struct
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune.corpora.safe_pickle import load_pickle
from skesl_mug.errors import UserError


class Evil:
    """Pickles to a call of its choice."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


def write(folder: Path, raw: bytes) -> Path:
    path = folder / "data.pkl"
    path.write_bytes(raw)
    return path


def same(first: object, second: object) -> bool:
    if isinstance(first, np.ndarray) or isinstance(second, np.ndarray):
        first, second = np.asarray(first), np.asarray(second)
        return (
            first.dtype == second.dtype and first.shape == second.shape and all(map(same, first.ravel().tolist(), second.ravel().tolist()))
        )
    if isinstance(first, dict) and isinstance(second, dict):
        return list(first) == list(second) and all(same(first[key], second[key]) for key in first)
    if isinstance(first, (list, tuple)):
        return type(first) is type(second) and len(first) == len(second) and all(map(same, first, second))
    if isinstance(first, float) and first != first:
        return second != second
    return type(first) is type(second) and first == second


ARRAYS = [
    np.arange(24, dtype=np.float32).reshape(2, 3, 4),
    np.asfortranarray(np.arange(6, dtype=np.float64).reshape(2, 3)),
    np.arange(24, dtype=np.int64).reshape(4, 6)[::2, ::3],
    np.asarray([1.5, -np.inf, np.nan], ">f4"),
    np.asarray([True, False]),
    np.asarray(["video", "clip", "影片"]),
    np.asarray([b"bytes", b"b"]),
    np.asarray(["mixed", None, 3, np.arange(2)], dtype=object),
    np.zeros((0, 3), np.float16),
    np.asarray(3.0),
]


@pytest.mark.parametrize("protocol", range(6))
def test_arrays_and_containers_come_back(tmp_path, protocol):
    content = {"arrays": ARRAYS, "nested": {"a": [1, 2.5, "x", None, True, (1, 2), 2**70]}, "raw": b"\x00\xff", 3: {"set", "of"}}
    read = load_pickle(write(tmp_path, pickle.dumps(content, protocol=protocol)))
    assert same(read, pickle.loads(pickle.dumps(content, protocol=protocol)))


def test_numpy_scalars_come_as_numbers(tmp_path):
    assert load_pickle(write(tmp_path, pickle.dumps([np.float32(0.5), np.int64(3), np.str_("a"), np.bool_(True)]))) == [0.5, 3, "a", True]


def test_pickles_of_numpy_1_are_read(tmp_path):
    raw = pickle.dumps(np.arange(3.0), protocol=2)
    assert b"numpy._core.multiarray" in raw
    read = load_pickle(write(tmp_path, raw.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")))
    np.testing.assert_array_equal(read, np.arange(3.0))


def test_arrays_that_python_2_wrote(tmp_path):
    raw = (
        b"\x80\x02cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R(K\x01K\x02\x85cnumpy\ndtype\nU\x02f4K\x00K\x01\x87R"
        b"(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89U\x08" + struct.pack("<2f", 1.0, -2.5) + b"tb."
    )
    np.testing.assert_array_equal(load_pickle(write(tmp_path, raw)), np.asarray([1.0, -2.5], np.float32))


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text() | st.floats(),
        lambda children: st.lists(children) | st.dictionaries(st.text(), children),
        max_leaves=20,
    )
)
@settings(deadline=None, max_examples=60)
def test_any_plain_content_comes_back(content):
    for protocol in (0, 2, 5):
        assert same(load_pickle(SCRATCH.write(pickle.dumps(content, protocol=protocol))), content)


EVIL = [
    Evil(os.system, "touch /tmp/never"),
    Evil(eval, "1"),
    Evil(exec, "x = 1"),
    Evil(getattr, {}, "keys"),
    Evil(__import__, "os"),
    Evil(open, "/etc/hostname"),
    Evil(bytearray, 10**12),
    Evil(np.load, "file.npy", None, True),
    Evil(np.fromfile, "/etc/hostname"),
    Evil(np.zeros, 10**12),
    Evil(pickle.loads, b"."),
    {"train": {"audio": [np.arange(3), Evil(os.system, "true")]}},
    collections.Counter(a=1),
    pd.DataFrame({"a": [1]}),
    np.datetime64("2020-01-01"),
    np.zeros(2, dtype=[("a", "f4"), ("b", "f4")]),
    np.ma.masked_array([1, 2]),
    Path("a"),
    object(),
    io.StringIO,
]


@pytest.mark.parametrize("content", EVIL, ids=lambda content: type(content).__name__)
@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_everything_else_is_refused_by_name(tmp_path, content, protocol):
    path = write(tmp_path, pickle.dumps(content, protocol=protocol))
    with pytest.raises(UserError, match=r"which could run code") as fault:
        load_pickle(path)
    assert str(path) in str(fault.value)
    assert "\n" not in str(fault.value)


def test_the_refusal_names_the_culprit_and_hints(tmp_path):
    with pytest.raises(UserError, match=r"`(posix|nt)\.system`"):
        load_pickle(write(tmp_path, pickle.dumps(Evil(os.system, "true"))))
    with pytest.raises(UserError, match=r"pandas.*to_numpy"):
        load_pickle(write(tmp_path, pickle.dumps(pd.DataFrame({"a": [1]}))))


NAMED = {
    "attributes set on a stand-in": b"\x80\x02cnumpy.core.multiarray\n_reconstruct\n}X\x01\x00\x00\x00aK\x01sb.",
    "a dotted name": b"\x80\x04\x8c\x05numpy\x8c\x10ndarray.__base__\x93.",
    "an outside reference": b"\x80\x02K\x01Q.",
    "an extension code": b"\x80\x02\x82\x01.",
    "a memo index that is huge": b"\x80\x02Nr\xff\xff\xff\x7fj\xfe\xff\xff\x7f.",
    "bytes that are not there": b"\x80\x04\x8e" + struct.pack("<Q", 2**40) + b"a.",
    "a bytearray that is not there": b"\x80\x05\x96" + struct.pack("<Q", 2**40) + b"a.",
    "a frame that is not there": b"\x80\x04\x95" + struct.pack("<Q", 2**40) + b"N.",
    "a tuple nested too deep for hashing": b"\x80\x02}N" + b"\x85" * 200_000 + b"K\x01s.",
    "a zip file": b"PK\x03\x04" + b"\x00" * 40,
    "nothing": b"",
    "text": b"hello world",
}


@pytest.mark.parametrize("raw", NAMED.values(), ids=NAMED.keys())
def test_damaged_and_crafted_files_get_one_line(tmp_path, raw):
    with pytest.raises(UserError) as fault:
        load_pickle(write(tmp_path, raw))
    assert "\n" not in str(fault.value)


def test_array_content_of_another_size_is_refused(tmp_path):
    raw = pickle.dumps(np.arange(3, dtype=np.int32), protocol=4)
    assert raw.count(b"K\x03\x85") == 1
    with pytest.raises(UserError, match="damaged"):
        load_pickle(write(tmp_path, raw.replace(b"K\x03\x85", b"K\xff\x85")))


def test_an_absent_file_and_a_folder(tmp_path):
    for path in (tmp_path / "absent.pkl", tmp_path):
        with pytest.raises(UserError, match="cannot be read"):
            load_pickle(path)


class Scratch:
    """One file for the property tests, which cannot take a fixture's fresh folder for every example."""

    def __init__(self):
        import tempfile

        self.folder = tempfile.TemporaryDirectory()

    def write(self, raw: bytes) -> Path:
        return write(Path(self.folder.name), raw)


SCRATCH = Scratch()
NAMES = [b"cnumpy\ndtype\n", b"cos\nsystem\n", b"X\x02\x00\x00\x00f4", b"cnumpy.core.multiarray\n_reconstruct\n"]
OPCODES = st.sampled_from([bytes([code]) for code in range(256)] + NAMES)
VALID = pickle.dumps({"train": {"audio": np.ones((2, 3), np.float32), "raw_text": ["a", "b"], "id": np.asarray(["x", "y"])}})


def only_user_errors(raw: bytes) -> None:
    message = ""
    try:
        load_pickle(SCRATCH.write(raw))
    except UserError as error:
        message = str(error)
    assert "\n" not in message


@given(st.binary(max_size=200) | st.lists(OPCODES, max_size=40).map(b"".join).map(lambda body: b"\x80\x04" + body + b"."))
@settings(deadline=None, max_examples=400)
def test_random_bytes_raise_nothing_but_user_errors(raw):
    only_user_errors(raw)


@given(st.lists(st.tuples(st.integers(0, len(VALID) - 1), st.integers(0, 255)), min_size=1, max_size=6), st.integers(0, len(VALID)))
@settings(deadline=None, max_examples=400)
def test_spoilt_bytes_raise_nothing_but_user_errors(changes, end):
    raw = bytearray(VALID)
    for place, value in changes:
        raw[place] = value
    only_user_errors(bytes(raw))
    only_user_errors(bytes(raw[:end]))


TENSORS = [
    torch.arange(6.0).reshape(2, 3),
    torch.arange(24).reshape(2, 3, 4)[:, 1:, ::2],
    torch.arange(6.0).reshape(2, 3).T,
    torch.arange(40_000, dtype=torch.float64).reshape(4, -1),
    torch.ones(3, dtype=torch.float16),
    torch.tensor([1.5, -2.25], dtype=torch.bfloat16),
    torch.tensor([True, False]),
    torch.tensor(7),
    torch.zeros(0, 3),
]


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_tensors_become_arrays(tmp_path, protocol):
    content = {"train": {"audio": TENSORS, "again": TENSORS[0]}}
    read = load_pickle(write(tmp_path, pickle.dumps(content, protocol=protocol)), tmp_path)
    for tensor, array in zip(TENSORS, read["train"]["audio"], strict=True):
        np.testing.assert_array_equal(array, tensor.float().numpy() if tensor.dtype == torch.bfloat16 else tensor.numpy())
    np.testing.assert_array_equal(read["train"]["again"], TENSORS[0])


class FalseTensor:
    """A tensor with other claims about its size than its storage has."""

    def __init__(self, size, stride, offset):
        self.rest = (offset, size, stride, False, {})

    def __reduce__(self):
        return torch._utils._rebuild_tensor_v2, (torch.zeros(4)._typed_storage(), *self.rest)


BEYOND = [((5,), (1,), 0), ((2, 2), (4, 1), 0), ((2,), (-1,), 3), ((1,), (1,), 4)]


@pytest.mark.parametrize("claim", BEYOND)
def test_tensors_beyond_their_storage_are_refused(tmp_path, claim):
    with pytest.raises(UserError, match=r"not a pickle, or damaged .*tensor"):
        load_pickle(write(tmp_path, pickle.dumps(FalseTensor(*claim))))


def test_damaged_storages_are_refused(tmp_path):
    raw = pickle.dumps(torch.arange(6.0))
    for old, new in ((b"FloatStorage", b"DoublStorage"), (b"FloatStorage", b"CfloaStorage"), (b"torch\nFloat", b"torcx\nFloat")):
        with pytest.raises(UserError, match="damaged"):
            load_pickle(write(tmp_path, raw.replace(old, new)))


def test_ordered_and_default_dictionaries(tmp_path):
    content = collections.defaultdict(list, train=collections.OrderedDict(a=[1]))
    assert load_pickle(write(tmp_path, pickle.dumps(content))) == {"train": {"a": [1]}}


def test_text_of_python_2_is_utf_8(tmp_path):
    raw = b"(lp0\nS'caf\\xc3\\xa9'\np1\naS'caf\\xe9'\np2\na."
    assert [str(text) for text in load_pickle(write(tmp_path, raw))] == ["caf\xe9", "caf\xe9"]
    assert [str(text) for text in load_pickle(write(tmp_path, b"\x80\x02]U\x05caf\xc3\xa9a."))] == ["caf\xe9"]


@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress, lzma.compress])
def test_compressed_pickles(tmp_path, compress):
    content = {"train": {"audio": np.arange(30_000.0), "text": ["a"]}}
    path = write(tmp_path, compress(pickle.dumps(content)))
    read = load_pickle(path, tmp_path)
    np.testing.assert_array_equal(read["train"]["audio"], content["train"]["audio"])
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(UserError, match=r"damaged|cannot be read"):
        load_pickle(write(tmp_path, path.read_bytes()[:-20]))


def test_files_of_torch_save(tmp_path):
    content = {"train": {"audio": TENSORS, "text": ["a"], "array": np.arange(20_000.0)}}
    torch.save(content, tmp_path / "corpus.pt")
    read = load_pickle(tmp_path / "corpus.pt", tmp_path)["train"]
    for tensor, array in zip(TENSORS, read["audio"], strict=True):
        np.testing.assert_array_equal(array, tensor.float().numpy() if tensor.dtype == torch.bfloat16 else tensor.numpy())
    np.testing.assert_array_equal(read["array"], np.arange(20_000.0))
    torch.save(torch.nn.Linear(2, 2), tmp_path / "model.pt")
    with pytest.raises(UserError, match=r"which could run code: `torch\.nn"):
        load_pickle(tmp_path / "model.pt")
    np.savez(tmp_path / "arrays.npz", audio=np.zeros(3))
    with pytest.raises(UserError, match=r"is a zip file, not a pickle"):
        load_pickle(tmp_path / "arrays.npz")


@given(st.lists(st.tuples(st.integers(0, 1 << 12), st.integers(0, 255)), min_size=1, max_size=6))
@settings(max_examples=60, deadline=None)
def test_damaged_files_of_torch_save(changes):
    stream = io.BytesIO()
    torch.save({"a": torch.arange(6.0)}, stream)
    raw = bytearray(stream.getvalue())
    for place, value in changes:
        raw[place % len(raw)] = value
    with contextlib.suppress(UserError):  # never anything else
        load_pickle(SCRATCH.write(bytes(raw)))
