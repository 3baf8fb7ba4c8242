"""The fuzzing targets: pickle reader and corpus loader, lexicon reader, csv readers, segmenter."""

import csv
import io
import json
import math
import pickle
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from hypothesis import strategies as st
from synthetic_segments import check_segments, spoken

from finetune.corpora.loading import load_corpus
from finetune.corpora.safe_pickle import load_pickle
from lexicons.sources import load_lexicon
from lexicons.words import word_spans
from preprocessing.facts import read_references
from preprocessing.layouts import folder, labelled
from preprocessing.layouts.labelled import read_folds
from preprocessing.layouts.voxceleb import read_speaker_table
from preprocessing.records import MANIFEST_FILE, read_manifest
from preprocessing.schema import Word
from preprocessing.segments import SegmentLimits, split_words, stretches
from skesl_mug.errors import UserError

from .fuzz import Target

SCRATCH = tempfile.TemporaryDirectory(prefix="fuzz-")
PLACE = Path(SCRATCH.name)
ONE_LINE = "a value or a UserError"

edits = st.lists(
    st.tuples(st.sampled_from(["put", "insert", "delete", "repeat", "cut"]), st.floats(0, 1), st.binary(max_size=6), st.integers(1, 60)),
    max_size=5,
)


def spoil(raw: bytes, changes: list[tuple[str, float, bytes, int]]) -> bytes:
    """The bytes after some edits."""
    for kind, share, piece, length in changes:
        place = int(share * len(raw))
        before, after = raw[:place], raw[place:]
        if kind == "put":
            raw = before + piece + after[len(piece) :]
        elif kind == "insert":
            raw = before + piece + after
        elif kind == "delete":
            raw = before + after[length:]
        elif kind == "repeat":
            raw = before + after[:length] * 3 + after[length:]
        else:
            raw = before
    return raw


def write(name: str, raw: bytes) -> Path:
    path = PLACE / name
    path.write_bytes(raw)
    return path


def must(condition: bool, error: UserError) -> None:
    assert condition, f"the message is not as promised: {error}"


# --- pickles

NAMES = [b"cos\nsystem\n", b"cnumpy\nndarray\n", b"cnumpy\ndtype\n", b"cnumpy._core.multiarray\n_reconstruct\n", b"cbuiltins\neval\n"]
NAMES += [b"c_codecs\nencode\n", b"cbuiltins\nset\n", b"cnumpy._core.numeric\n_frombuffer\n", b"X\x02\x00\x00\x00f4", b"\x8c\x05numpy"]
NAMES += [b"ctorch._utils\n_rebuild_tensor_v2\n", b"ctorch.storage\n_load_from_bytes\n", b"ccollections\nOrderedDict\n"]
opcodes = st.lists(st.sampled_from([bytes([code]) for code in range(256)] + NAMES) | st.binary(max_size=5), max_size=40).map(b"".join)
arrays = st.tuples(st.sampled_from([*"?bBhHiIlqefd", "U3", "S4", "O"]), st.lists(st.integers(0, 5), min_size=1, max_size=3)).map(
    lambda made: np.zeros(made[1], made[0])
)
plain = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.binary(max_size=8) | arrays
contents = st.recursive(
    plain,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4) | st.tuples(inner),
    max_leaves=8,
)
pickles = st.one_of(
    st.builds(lambda content, protocol, changes: spoil(pickle.dumps(content, protocol), changes), contents, st.integers(0, 5), edits),
    st.builds(lambda protocol, changes: spoil(pickle.dumps({"a": torch.ones(3, 4).T}, protocol), changes), st.integers(2, 5), edits),
    st.builds(lambda body, protocol: b"\x80" + bytes([protocol]) + body + b".", opcodes, st.integers(0, 5)),
    st.builds(lambda content, body, changes: spoil(pickle.dumps(content), changes)[:-1] + body + b".", contents, opcodes, edits),
)


def check_pickle(raw: bytes) -> None:
    try:
        load_pickle(write("a.pkl", raw))
    except UserError as error:
        must("\n" not in str(error), error)


def split_of(count: int) -> dict[str, Any]:
    random = np.random.default_rng(count)
    return {
        "raw_text": ["a fine film"] * count,
        "audio": random.normal(size=(count, 4, 3)).astype(np.float32),
        "vision": random.normal(size=(count, 3, 2)).astype(np.float32),
        "id": [f"v{place // 2}$_${place}" for place in range(count)],
        "regression_labels": np.linspace(-1, 1, count, dtype=np.float32),
    }


KEYS = ["raw_text", "audio", "vision", "id", "regression_labels", "regression_labels_T", "audio_lengths", "annotations", "text_bert"]
KEYS += ["text", "labels", "video"]
odd = plain | st.lists(st.floats() | st.none() | st.text(max_size=3), min_size=6, max_size=6) | st.just([[0.5]] * 6)
odd |= st.sampled_from([np.full((6, 4, 3), np.nan, np.float32), np.full((6,), np.inf), np.zeros((6, 0, 3)), np.zeros((6, 4, 3), object)])
changes_of_corpora = st.lists(st.tuples(st.sampled_from(["train", "valid", "test"]), st.sampled_from(KEYS), odd), max_size=3)


def check_corpus(made: tuple[list[tuple[str, str, Any]], Any]) -> None:
    changes, entry = made
    content: dict[str, Any] = {name: split_of(6) for name in ("train", "valid", "test")}
    for split, key, value in changes:
        content[split][key] = value
    if entry is not None:
        content["more"] = entry
    path = write("corpus.pkl", pickle.dumps(content))
    try:
        corpus = load_corpus("sims", path, cache=PLACE / "cache")
    except UserError as error:
        must(str(path) in str(error) or "--" in str(error), error)
        return
    for split in corpus.splits.values():
        assert np.isfinite(split.label).all()
        for frames in (split.text_vectors, split.audio, split.vision):
            assert all(row is None or np.isfinite(row).all() for row in frames or ()), "a feature that is not a number"


# --- lexicons

words = st.text(max_size=6) | st.sampled_from(
    ["good", "fed up", "no", "yes", "好", ":'(", '"', "#", "null", "- a", "a: b", "&x", "*x", "!!int"]
)
numbers = st.floats().map(str) | st.integers().map(str) | st.sampled_from(["1e999", "nan", "-0", "1_0", "", "0x1", "٣", "9" * 400])
tables = st.lists(st.tuples(words, numbers), max_size=8)


def as_file(kind: str, rows: list[tuple[str, str]]) -> bytes:
    if kind in (".tsv", ".csv"):
        return "\n".join(("\t" if kind == ".tsv" else ",").join(row) for row in rows).encode("utf-8", "surrogatepass")
    if kind == ".json":
        return json.dumps(dict(rows)).encode()
    return yaml.safe_dump({"Dictionary": {word: {"valence": value} for word, value in rows}} if len(rows) % 2 else dict(rows)).encode()


kinds = st.sampled_from([".tsv", ".csv", ".json", ".yaml"])
lexicon_files = st.tuples(kinds, st.builds(as_file, kinds, tables) | st.binary(max_size=60), edits)


def check_lexicon(made: tuple[str, bytes, list]) -> None:
    kind, raw, changes = made
    path = write(f"a{kind}", spoil(raw, changes))
    try:
        lexicon = load_lexicon(path)
    except UserError as error:
        must(path.name in str(error), error)
        return
    for text in ("no good, fed up!", "好", ""):
        for match in lexicon.matches([text[a:b] for a, b in word_spans(text, "en")]):
            assert math.isfinite(match.intensity)
            assert abs(match.intensity) <= 3.0 + 1e-6


# --- csv files

HEADS = ["clip", "label", "label_T", "split", "speaker", "video_id", "transcript", "clip_id", "text", "start", "end", "true_text"]
HEADS += ["Nationality", "VGGFace1 ID", "id", "path", "state", "reason", "detail", "shard", "source_key", "Clip "]
cells = st.text(max_size=5) | st.sampled_from(
    ["a", "b", "v/0", "v/0.mp4", "1.5", "-9", "inf", "train", "valid", "3", "kept", "skipped", "USA"]
)
csv_tables = st.lists(st.sampled_from(HEADS), min_size=1, max_size=6).flatmap(
    lambda heads: st.lists(st.lists(cells, min_size=len(heads) - 1, max_size=len(heads) + 1), max_size=5).map(lambda rows: [heads, *rows])
)
csv_files = st.tuples(
    csv_tables, st.sampled_from([",", ",", "\t", ";"]), st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "latin-1"]), edits
)


def check_csv(made: tuple[list[list[str]], str, str, list]) -> None:
    table, separator, encoding, changes = made
    text = io.StringIO(newline="")
    csv.writer(text, delimiter=separator).writerows(table)
    path = write("labels.csv", spoil(text.getvalue().encode(encoding, "replace"), changes))
    root = PLACE / "videos"
    if not root.exists():
        for name in ("a.mp4", "b.mp4", "v/0.mp4"):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).touch()
    layout = labelled.Layout("mosi", "en", (-3.0, 3.0))
    manifest = PLACE / "manifest"
    manifest.mkdir(exist_ok=True)
    (manifest / MANIFEST_FILE).write_bytes(path.read_bytes())
    for read in (
        lambda: folder.find_folder(root, path),
        lambda: labelled.find_labelled(layout, root, path),
        lambda: read_folds(path),
        lambda: read_speaker_table(path),
        lambda: read_references(path),
        lambda: list(read_manifest(manifest)),
    ):
        try:
            found = read()
        except UserError as error:
            must(str(path) in str(error) or str(root) in str(error) or MANIFEST_FILE in str(error), error)
            continue
        for clip in getattr(found, "clips", []):
            assert all(math.isfinite(value) for value in clip.labels.values())
            assert clip.split in (None, "train", "valid", "test")


# --- the segmenter

limits = st.builds(
    lambda pause, longest, margin: SegmentLimits(pause=pause, longest=longest, margin=margin),
    st.floats(0.01, 5), st.floats(1, 60), st.floats(0, 3),
)  # fmt: skip
crooked = st.lists(st.tuples(st.floats(0, 50), st.floats(0, 3), st.sampled_from(["so", "a", "film.", "好", "e.g.", "…"])), max_size=30)


def check_segmenter(made: tuple[tuple[list[Word], str], list[tuple[float, float, str]], SegmentLimits]) -> None:
    """Regular words, and words as a recogniser may return them: overlapping, empty, several at one time."""
    (words, text), others, bounds = made
    check_segments(words, text, bounds)
    odd_words, odd_text = [], ""
    for start, length, token in sorted(others):
        odd_words.append(Word(token, len(odd_text), len(odd_text) + len(token), start, start + length))
        odd_text += token + " "
    ranges = split_words(odd_words, odd_text, bounds)
    assert [place for first, last in ranges for place in range(first, last)] == list(range(len(odd_words)))
    spans = stretches(odd_words, ranges, (0.0, 60.0), bounds.margin)
    assert len(spans) == len(ranges)
    for (low, high), (first, last) in zip(spans, ranges, strict=True):
        assert 0 <= low <= odd_words[first].start
        assert odd_words[last - 1].end <= high <= 60
    assert [low for low, _ in spans] == sorted(low for low, _ in spans)


FINITE = f"{ONE_LINE} that names the file; labels and features are finite"
corpora = st.tuples(changes_of_corpora, st.none() | odd)
TARGETS = (
    Target("pickle reader", f"{ONE_LINE} of one line", pickles, check_pickle),
    Target("labelled pickles", FINITE, corpora, check_corpus),
    Target("lexicon reader", f"{ONE_LINE} that names the file; intensities finite and in range", lexicon_files, check_lexicon),
    Target("csv readers", f"{ONE_LINE} that names the file; labels finite", csv_files, check_csv),
    Target("segmenter", "no word lost, in order, within recording and limits", st.tuples(spoken(), crooked, limits), check_segmenter),
)
