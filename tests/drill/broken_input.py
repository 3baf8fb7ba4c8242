"""Broken, hostile and mistaken input to every command: one line that names the cause, or a counted loss; never a stack trace."""

import os
import pickle
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np

from .frame import ROOT, Ended, fault, holds, no_traceback, refused, run
from .ground import Ground, fine_tune, predict, preprocess, pretrain, search, study

NAMED = "exit 2, one line that names it"
Spoil = Callable[[Ground], tuple[list[str], list[str]]]
"""Damages something; returns the command and what its error must name."""


def refusal(name: str, command: str) -> Callable[[Spoil], Spoil]:
    """Register damage that the command must report."""

    def enter(spoil: Spoil) -> Spoil:
        def check(ground: Ground) -> str:
            arguments, names = spoil(ground)
            return refused(run(arguments), *names)

        fault(name, command, NAMED)(check)
        return spoil

    return enter


def with_option(command: list[str], flag: str, value: object) -> list[str]:
    """The command with another value of a flag, which is added if absent."""
    if flag not in command:
        return [*command, flag, str(value)]
    place = command.index(flag) + 1
    return [*command[:place], str(value), *command[place + 1 :]]


def ended_well(ended: Ended) -> str:
    """Check that a command succeeded."""
    no_traceback(ended)
    holds(ended.status == 0, f"exit {ended.status}: {' / '.join(ended.lines)}")
    return "done"


def cut(path: Path, share: float = 0.5) -> None:
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])


def dent(path: Path, place: float = 0.5, length: int = 64) -> None:
    content = bytearray(path.read_bytes())
    start = int(len(content) * place)
    content[start : start + length] = os.urandom(length)
    path.write_bytes(bytes(content))


# --- csv, YAML and JSON files of every command ---------------------------------------------------------------------------------------

TABLES: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "labels.csv"),
    "without the column `clip`": (b"video,label\nv0/0,1\n", "labels.csv.*clip"),
    "that is an Excel workbook": (b"PK\x03\x04\x14\0xl/workbook.xml", "labels.csv.*csv file"),
    "with a row of too many cells": (b"clip,label\nv0/0,1,5\n", "labels.csv.*line 2"),
    "with inf as a label": (b"clip,label\nv0/0,inf\n", "labels.csv.*line 2"),
    "with a word as a label": (b"clip,label\nv0/0,good\n", "labels.csv.*line 2"),
    "with a duplicate clip": (b"clip,label\nv0/0,1\nv0/0,2\n", "labels.csv.*line 3"),
    "with an unclosed quote": (b'clip,label\n"v0/0,1\n', "labels.csv"),
    "with a cell of one megabyte": (b"clip,label\nv0/0," + b"9" * 1_000_000 + b"\n", "labels.csv"),
    "with an unknown split": (b"clip,label,split\nv0/0,1,practice\n", "labels.csv.*practice"),
}


def _table(content: bytes, named: str) -> Spoil:
    def spoil(ground: Ground) -> tuple[list[str], list[str]]:
        table = ground.fresh("labels.csv")
        table.write_bytes(content)
        return [*preprocess(ground, ground.fresh()), "--labels", str(table)], [named]

    return spoil


for _name, (_content, _named) in TABLES.items():
    refusal(f"labels csv {_name}", "preprocessing/run.py")(_table(_content, _named))

CONFIGS: dict[str, tuple[bytes, str]] = {
    "that is not YAML": (b"workers: [1\n", "bad.yaml"),
    "that is a list": (b"- workers\n", "bad.yaml"),
    "that is empty": (b"", "bad.yaml"),
    "in UTF-16": ("workers: 1\n".encode("utf-16"), "bad.yaml"),
    "with an impossible date": (b"output: 2024-99-99\n", "bad.yaml"),
    "nested 5000 deep": (b"a: " + b"[" * 5000 + b"]" * 5000, "bad.yaml"),
    "that runs code if loaded unsafely": (b"output: !!python/object/apply:os.system ['touch never']\n", "bad.yaml"),
    "that contains itself": (b"&a\nworkers: *a\n", "bad.yaml"),
}
ENTRIES: dict[str, Callable[[Ground, Path], list[str]]] = {
    "preprocessing/run.py": preprocess,
    "pretrain/run.py": pretrain,
    "run_mug.py": fine_tune,
    "predict.py": predict,
}


def _config(make: Callable[[Ground, Path], list[str]], content: bytes, named: str) -> Spoil:
    def spoil(ground: Ground) -> tuple[list[str], list[str]]:
        path = ground.fresh("bad.yaml")
        path.write_bytes(content)
        return [*make(ground, ground.fresh()), "--config", str(path)], [named]

    return spoil


for _name, (_content, _named) in CONFIGS.items():
    refusal(f"--config {_name}", "preprocessing/run.py")(_config(preprocess, _content, _named))
for _command, _make in ENTRIES.items():

    def _unknown(ground: Ground, make: Callable[[Ground, Path], list[str]] = _make) -> str:
        path = ground.fresh("bad.yaml")
        path.write_text("wrokers: 2\n")
        ended = run([*make(ground, ground.fresh()), "--config", str(path)])
        no_traceback(ended)
        holds(ended.status == 2 and "wrokers" in ended.err, f"exit {ended.status}: {' / '.join(ended.lines)}")
        return "exit 2, names --wrokers"

    fault("--config with a misspelt option", _command, "exit 2, names it")(_unknown)

PLUGINS: dict[str, tuple[str | None, str]] = {
    "that does not exist": (None, "ModuleNotFoundError"),
    "that raises when it is imported": ("1 / 0\n", "ZeroDivisionError"),
    "that registers a name twice": ("import skesl_mug as sm\nsm.register_generator('copy')(print)\n", "copy.*already registered"),
}


def _plugin(make: Callable[[Ground, Path], list[str]], source: str | None, named: str) -> Callable[[Ground], str]:
    def check(ground: Ground) -> str:
        path = ground.fresh("my_plugin.py")
        if source is not None:
            path.write_text(source)
        ended = run([*make(ground, ground.fresh()), "--plugin", path.stem], PYTHONPATH=f"{path.parent}:{ROOT}")
        return refused(ended, "--plugin my_plugin", named)

    return check


for _name, (_source, _named) in PLUGINS.items():
    for _command, _make in {**ENTRIES, "studies": study, "search": search}.items():
        if _name == "that raises when it is imported" or _command in ("run_mug.py", "studies"):
            fault(f"--plugin {_name}", _command, NAMED)(_plugin(_make, _source, _named))

LEXICONS: dict[str, tuple[str, bytes]] = {
    "that is not JSON": ("bad.json", b'{"good": 1'),
    "with a number of 400 digits": ("bad.json", b'{"good": 1' + b"0" * 400 + b"}"),
    "nested 100,000 deep": ("bad.json", b"[" * 100_000),
    "in YAML nested 5000 deep": ("bad.yaml", b"[" * 5000 + b"]" * 5000),
    "that is empty": ("bad.tsv", b""),
    "with a word instead of a number": ("bad.tsv", b"good\t1\nbad\tvery\n"),
    "that is an Excel workbook": ("bad.csv", b"PK\x03\x04\x14\0xl/workbook.xml"),
    "with a cell of one megabyte": ("bad.csv", b"good,1\n" + b"x" * 1_000_000 + b",1\n"),
}


def _lexicon(file: str, content: bytes) -> Spoil:
    def spoil(ground: Ground) -> tuple[list[str], list[str]]:
        path = ground.fresh(file)
        path.write_bytes(content)
        return ["-m", "preprocessing.remask", str(ground.copy(ground.data)), "--lexicon", str(path)], [file]

    return spoil


for _name, (_file, _content) in LEXICONS.items():
    refusal(f"lexicon file {_name}", "remask")(_lexicon(_file, _content))


# --- pickles -------------------------------------------------------------------------------------------------------------------------


class Evil:
    """Runs a command if it is unpickled unsafely."""

    def __reduce__(self) -> tuple:
        return os.system, ("touch never",)


def _changed(change: Callable[[dict], None]) -> Callable[[Path], None]:
    def spoil(path: Path) -> None:
        content = pickle.loads(path.read_bytes())
        change(content)
        path.write_bytes(pickle.dumps(content))

    return spoil


def _labels(value: float) -> Callable[[Path], None]:
    return _changed(lambda content: content["train"]["regression_labels"].__setitem__(3, value))


def _without(key: str) -> Callable[[Path], None]:
    return _changed(lambda content: content["train"].pop(key))


PICKLES: dict[str, tuple[Callable[[Path], object], str]] = {
    "that runs a command": (_changed(lambda content: content.update(more=Evil())), "sims.pkl.*system"),
    "cut in the middle": (cut, "sims.pkl"),
    "that is empty": (lambda path: path.write_bytes(b""), "sims.pkl"),
    "that is text": (lambda path: path.write_text("hello\n" * 100), "sims.pkl"),
    "that is a zip file": (lambda path: path.write_bytes(b"PK\x03\x04" + bytes(100)), "sims.pkl.*zip"),
    "that declares a terabyte": (lambda path: path.write_bytes(b"\x80\x04\x8e" + struct.pack("<Q", 2**40) + b"a."), "sims.pkl"),
    "with tuples nested 200,000 deep": (lambda path: path.write_bytes(b"\x80\x02}N" + b"\x85" * 200_000 + b"K\x01s."), "sims.pkl"),
    "that is a list": (lambda path: path.write_bytes(pickle.dumps([1, 2])), "sims.pkl.*list"),
    "without labels": (_without("regression_labels"), "sims.pkl.*train.*regression_labels"),
    "with a label of 7": (_labels(7.0), "sims.pkl.*train"),
    "with labels of the wrong length": (
        _changed(lambda content: content["train"].update(regression_labels=np.zeros(3, np.float32))),
        "sims.pkl.*train",
    ),
    "with words as audio": (_changed(lambda content: content["train"].update(audio=["a"] * 48)), "sims.pkl.*audio.*train|train.*audio"),
    "with audio of a different width in test": (
        _changed(lambda content: content["test"].update(audio=np.ones((12, 6, 9), np.float32))),
        "sims.pkl.*audio",
    ),
    "without a train split": (_changed(lambda content: content.pop("train")), "sims.pkl.*train"),
    "that is absent": (lambda path: path.unlink(), "sims.pkl"),
}


def _pickle(spoiler: Callable[[Path], object], named: str) -> Spoil:
    def spoil(ground: Ground) -> tuple[list[str], list[str]]:
        path = ground.copy(ground.pickle)
        spoiler(path)
        return with_option(fine_tune(ground, ground.fresh()), "--data", path), [named]

    return spoil


for _name, (_spoiler, _named) in PICKLES.items():
    refusal(f"pickle {_name}", "run_mug.py")(_pickle(_spoiler, _named))


def _feature(value: float) -> Callable[[Ground], str]:
    def check(ground: Ground) -> str:
        path = ground.copy(ground.pickle)
        _changed(lambda content: content["train"]["audio"].__setitem__((3, 2, 1), value))(path)
        ended = run(with_option(fine_tune(ground, ground.fresh()), "--data", path))
        ended_well(ended)
        line = next((line for line in ended.out.splitlines() if "audio" in line and line.startswith(("warning", "note"))), None)
        holds(line, "done, and says nothing of it")
        return f"done; {line}"

    return check


@fault("pickle with a label of inf", "run_mug.py", "done, and a line that counts it")
def infinite_label(ground: Ground) -> str:
    path = ground.copy(ground.pickle)
    _labels(np.inf)(path)
    ended = run(with_option(fine_tune(ground, ground.fresh()), "--data", path))
    ended_well(ended)
    line = next((line for line in ended.out.splitlines() if line.startswith("warning: train/label")), None)
    holds(line, "done, and says nothing of it")
    return f"done; {line}"


for _value in (np.nan, np.inf):
    fault(f"pickle with {_value} in a feature", "run_mug.py", "done, and a line that counts it")(_feature(_value))


# --- utterance datasets --------------------------------------------------------------------------------------------------------------


def _shard(folder: Path) -> Path:
    return sorted((folder / "data").glob("*.parquet"))[1]


def _other_table(folder: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"name": ["a"], "value": [1]}), _shard(folder))


def _info(content: str) -> Callable[[Path], object]:
    return lambda folder: (folder / "dataset.json").write_text(content)


DATASETS: dict[str, tuple[Callable[[Path], object], str]] = {
    "with a shard cut in the middle": (lambda folder: cut(_shard(folder)), "part-000001.parquet"),
    "with an empty shard": (lambda folder: _shard(folder).write_bytes(b""), "part-000001.parquet"),
    "with a shard of noise inside": (lambda folder: dent(_shard(folder), 0.3, 4000), "data"),
    "with another table as a shard": (_other_table, "data"),
    "without shards": (lambda folder: shutil.rmtree(folder / "data"), "data"),
    "with a shard missing": (lambda folder: _shard(folder).unlink(), "data"),
    "with dataset.json cut": (lambda folder: cut(folder / "dataset.json"), "dataset.json"),
    "with dataset.json a list": (_info("[]"), "dataset.json"),
    "with dataset.json in a newer format": (_info('{"format_version": 99}'), "dataset.json"),
    "with text as its features": (_info('{"format_version": 1, "corpus": {"name": "a"}, "audio": "librosa"}'), "dataset.json"),
    "with null as its corpus": (_info('{"format_version": 1, "corpus": null}'), "dataset.json"),
    "without dataset.json": (lambda folder: (folder / "dataset.json").unlink(), "dataset.json"),
}


def _dataset(spoiler: Callable[[Path], object], named: str, command: str) -> Spoil:
    def spoil(ground: Ground) -> tuple[list[str], list[str]]:
        data = ground.copy(ground.data)
        spoiler(data)
        if command == "pretrain/run.py":
            return with_option(pretrain(ground, ground.fresh()), "--data", data), [named]
        if command == "run_mug.py":
            given = with_option(with_option(fine_tune(ground, ground.fresh()), "--data", data), "--dataset", "custom")
            return given, [named]
        if command == "lexicons.compare":
            return ["-m", "lexicons.compare", str(data)], [str(data)]
        return ["-m", f"preprocessing.{command}", str(data)], [named]

    return spoil


for _name, (_spoiler, _named) in DATASETS.items():
    refusal(f"dataset {_name}", "remask")(_dataset(_spoiler, _named, "remask"))
for _command in ("pretrain/run.py", "run_mug.py", "show"):
    for _name in ("with a shard cut in the middle", "with a shard of noise inside", "with a shard missing", "with dataset.json cut"):
        refusal(f"dataset {_name}", _command)(_dataset(*DATASETS[_name], _command))
for _name in ("with a shard cut in the middle", "with another table as a shard", "without shards"):
    refusal(f"dataset {_name}", "lexicons.compare")(_dataset(*DATASETS[_name], "lexicons.compare"))
