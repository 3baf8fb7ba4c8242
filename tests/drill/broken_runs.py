"""Damaged or mistaken results of earlier commands: runs, checkpoints, models, encoders, recordings."""

import json
import pickle
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

from .broken_input import Evil, cut, ended_well, refusal, with_option
from .disturbed import ends_as_undisturbed
from .frame import NotHeldError, disturb, done, fault, holds, no_traceback, refused, run
from .ground import JOBS, Ground, Job, fine_tune, predict, preprocess, pretrain


def job(name: str) -> Job:
    return next(entry for entry in JOBS if entry.name == name)


def finished(ground: Ground, name: str) -> Path:
    """A copy of the folder of an undisturbed run."""
    key = f"finished {name}"
    if key not in ground.kept:
        output = ground.fresh()
        done(run(job(name).command(ground, output)))
        ground.kept[key] = output
    return ground.copy(ground.kept[key])


Spoiler = Callable[[Path], object]


def left(path: str, spoiler: Spoiler, command: str, named: str) -> None:
    """Damage a file of a finished run and remove its results; the same command must report the file or recreate it."""

    def check(ground: Ground) -> str:
        output = finished(ground, command)
        spoiler(next(iter(sorted(output.glob(path)))))
        for name in ("results.json", "study.json"):
            (output / name).unlink(missing_ok=True)
        ended = run(job(command).command(ground, output))
        no_traceback(ended)
        if ended.status == 2:
            return refused(ended, named)
        done(ended)
        if job(command).result(output) != ground.whole(job(command))[0]:
            raise NotHeldError("done, but the result is another")
        return "recreated; same result"

    fault(f"{path} of its own run damaged", command, "exit 2, one line that names it; or recreated with the same result")(check)


def noise(path: Path) -> None:
    path.write_bytes(b"\xff\xfe\x00noise" * 30)


left("config.yaml", noise, "preprocessing/run.py", r"config\.yaml")
left("clips.csv", noise, "preprocessing/run.py", r"clips\.csv")
left("dataset.json", cut, "preprocessing/run.py", r"dataset\.json")
left("data/*.parquet", lambda path: path.unlink(), "preprocessing/run.py", "parquet")
left("config.yaml", noise, "pretrain/run.py", r"config\.yaml")
left("checkpoints/step-*/progress.json", cut, "pretrain/run.py", "step-")
left("config.yaml", noise, "run_mug.py", r"config\.yaml")
left("checkpoints/identity.json", cut, "run_mug.py", r"identity\.json")
left("checkpoints/sessions.json", cut, "run_mug.py", r"sessions\.json")
left("checkpoints/seed-1/mucn-crossfit.json", cut, "run_mug.py", r"mucn-crossfit\.json")
left("checkpoints/seed-1/stage1_full.safetensors", cut, "run_mug.py", "stage1_full")
left("checkpoints/*/seed-1/*.json", cut, "studies", r"\.json")
left("config.yaml", noise, "studies", r"config\.yaml")
left("checkpoints/trials.log", cut, "search", r"trials\.log")


@fault("newest checkpoint damaged", "pretrain/run.py", "exit 2, one line that names it and the fix; with it deleted, the same result")
def damaged_checkpoint(ground: Ground) -> str:
    output = ground.fresh()
    command = pretrain(ground, output)

    def begun() -> bool:
        return len(list(output.glob("checkpoints/step-*/progress.json"))) >= 2

    holds(disturb(command, signal.SIGKILL, begun) is not None, "the job was faster than the signal")
    newest = sorted(output.glob("checkpoints/step-*/progress.json"))[-1].parent
    cut(next(newest.glob("*.safetensors")))
    seen = refused(run(command), newest.name)
    shutil.rmtree(newest)
    ends_as_undisturbed(ground, job("pretrain/run.py"), command, output)
    return f"{seen}; deleted: same result"


# --- models and encoders -------------------------------------------------------------------------------------------------------------


def _empty(ground: Ground) -> Path:
    path = ground.fresh("nothing")
    path.mkdir()
    return path


def _file(ground: Ground) -> Path:
    path = ground.fresh("file.bin")
    path.write_bytes(b"no model")
    return path


def _spoilt(source: Callable[[Ground], Path], name: str, spoiler: Spoiler) -> Callable[[Ground], Path]:
    def spoil(ground: Ground) -> Path:
        folder = ground.copy(source(ground))
        spoiler(next(folder.rglob(name)))
        return folder

    return spoil


def _lm(ground: Ground) -> Path:
    return ground.lm


def _encoder(ground: Ground) -> Path:
    """A finished pretraining run, whose features are wider than the pickle's."""
    return finished(ground, "pretrain/run.py")


def _unfinished(ground: Ground) -> Path:
    output = ground.fresh("unfinished")
    output.mkdir()
    (output / "config.yaml").write_text("lm: x\n")
    return output


MODELS: dict[str, Callable[[Ground], Path]] = {
    "that is an empty folder": _empty,
    "that is a file": _file,
    "that does not exist": lambda ground: ground.folder / "absent" / "model",
    "whose config.json is cut": _spoilt(_lm, "config.json", cut),
    "whose weights are cut": _spoilt(_lm, "model.safetensors", cut),
    "whose tokenizer is cut": _spoilt(_lm, "tokenizer.json", cut),
    "whose config names an unknown kind": _spoilt(_lm, "config.json", lambda path: path.write_text('{"model_type": "mystery"}')),
}
ENCODERS: dict[str, Callable[[Ground], Path]] = {
    "that is an empty folder": _empty,
    "that is a file": _file,
    "that is an unfinished run": _unfinished,
    "that is a plain language model": _lm,
    "whose weights are cut": _spoilt(_encoder, "model.safetensors", cut),
    "whose config.json is cut": _spoilt(_encoder, "model/config.json", cut),
}


def _model(make: Callable[[Ground], Path], command: Callable[[Ground, Path], list[str]], flag: str) -> Callable:
    def spoil(ground: Ground) -> tuple[list[str], list[str]]:
        model = make(ground)
        arguments = command(ground, ground.fresh())
        if flag == "--encoder":
            place = arguments.index("--lm")
            arguments = [*arguments[:place], "--encoder", str(model), *arguments[place + 2 :]]
        else:
            arguments = with_option(arguments, flag, model)
        return arguments, [model.name]

    return spoil


for _name, _make in MODELS.items():
    refusal(f"--lm {_name}", "pretrain/run.py")(_model(_make, pretrain, "--lm"))
for _name, _make in ENCODERS.items():
    refusal(f"--encoder {_name}", "run_mug.py")(_model(_make, fine_tune, "--encoder"))
for _name in ("that is an empty folder", "that is a file", "that does not exist"):
    refusal(f"--asr.model {_name}", "preprocessing/run.py")(_model(MODELS[_name], preprocess, "--asr.model"))
    refusal(f"--model {_name}", "predict.py")(_model(MODELS[_name], predict, "--model"))


@fault("--encoder of other widths", "run_mug.py", "done; a line says what was re-initialised")
def other_widths(ground: Ground) -> str:
    arguments, _ = _model(_encoder, fine_tune, "--encoder")(ground)
    ended = run(arguments)
    ended_well(ended)
    line = next((line for line in ended.out.splitlines() if line.startswith("encoder:")), None)
    holds(line, "done, and says nothing of it")
    return f"done; {line}"


PARTS: dict[str, tuple[str, Spoiler]] = {
    "whose recipe is cut": ("recipe.json", cut),
    "whose recipe is a list": ("recipe.json", lambda path: path.write_text("[]")),
    "without a recipe": ("recipe.json", lambda path: path.unlink()),
    "whose weights are cut": ("model.safetensors", cut),
    "whose config.json is cut": ("config.json", cut),
    "whose tokenizer is cut": ("tokenizer.json", cut),
}
for _name, (_part, _spoiler) in PARTS.items():
    _whole = _spoilt(lambda ground: ground.model / "model", _part, _spoiler)
    refusal(f"--model {_name}", "predict.py")(_model(_whole, predict, "--model"))


# --- recordings ----------------------------------------------------------------------------------------------------------------------


@fault("a folder of broken and odd recordings", "preprocessing/run.py", "each becomes an utterance or is skipped with a reason; exit 0")
def broken_media(ground: Ground) -> str:
    import csv
    from collections import Counter

    from broken_media import EXPECTED, find_files, make_broken_media

    root, output = make_broken_media(ground.folder / "media"), ground.fresh()
    command = ["preprocessing/run.py", "--corpus", "folder", "--root", str(root), "--output", str(output), "--workers", "2"]
    done(run([*command, "--asr.beam-size", "1", "--vision-fps", "2", "--audio", "none"]))
    with (output / "clips.csv").open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        ends = {row["id"]: row["reason"] or row["state"] for row in csv.DictReader(file)}
    wrong = {name: ends.get(name) for name, reason in EXPECTED.items() if ends.get(name) != reason}
    holds(not wrong, f"ended otherwise than listed: {wrong}")
    holds(len(ends) == find_files(root), f"{find_files(root)} files, {len(ends)} in clips.csv")
    return f"{len(ends)} files: " + ", ".join(f"{count} {reason}" for reason, count in Counter(ends.values()).most_common())


@fault(
    "recordings: one good, one text, one empty, one without sound, one without video",
    "predict.py",
    "the good ones are predicted, the others reported",
)
def odd_recordings(ground: Ground) -> str:
    from broken_media import make_broken_media

    root = ground.folder / "media"
    if not root.exists():
        make_broken_media(root)
    output = ground.fresh()
    names = ["good.mp4", "text.mp4", "zero_bytes.mp4", "no_sound.mp4", "no_video.mp4"]
    ended = run(["finetune/predict.py", *(str(root / name) for name in names), "--model", str(ground.model), "--output", str(output)])
    ended_well(ended)
    holds("skipped" in ended.err and "text.mp4" in ended.err and "zero_bytes.mp4" in ended.err, "does not name the unreadable ones")
    written = {path.stem for path in output.glob("*.json")}
    holds({"good", "no_sound", "no_video"} <= written, f"wrote {', '.join(sorted(written))} alone")
    return f"done, {len(written)} predicted; {ended.lines[-1]}"


@fault("recordings of the same name in two folders", "predict.py", "done; each has its own result")
def same_names(ground: Ground) -> str:
    root, output = ground.fresh("recordings"), ground.fresh()
    paths = [root / "1" / "a.mp4", root / "2" / "a.mp4", root / "a-2.mp4"]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ground.predictable, path)
    done(run(["finetune/predict.py", *map(str, paths), "--model", str(ground.model), "--output", str(output)]))
    written = sorted(path.name for path in output.glob("*.json"))
    holds(len(written) == len(paths), f"wrote {', '.join(written)} alone")
    return f"done: {', '.join(written)}"


for _name in ("text.mp4", "zero_bytes.mp4", "absent.mp4"):

    def _recording(ground: Ground, name: str = _name) -> tuple[list[str], list[str]]:
        from broken_media import make_broken_media

        root = ground.folder / "media"
        if not root.exists():
            make_broken_media(root)
        return ["finetune/predict.py", str(root / name), "--model", str(ground.model)], []

    def _alone(ground: Ground, spoil: Callable = _recording) -> str:
        ended = run(spoil(ground)[0])
        no_traceback(ended)
        holds(ended.status == 2 and Path(spoil(ground)[0][1]).name in ended.err, f"exit {ended.status}: {' / '.join(ended.lines)}")
        return f"exit 2: {ended.lines[-1]}"

    fault(f"recording {_name} alone", "predict.py", "exit 2, names it")(_alone)


@fault("results.json that is a pickle, or of another command", "finetune.compare", "exit 2, one line that names it")
def compared(ground: Ground) -> str:
    folder = ground.fresh()
    folder.mkdir()
    (folder / "results.json").write_bytes(pickle.dumps(Evil()))
    first = refused(run(["-m", "finetune.compare", str(folder), str(folder)]), "results.json")
    (folder / "results.json").write_text(json.dumps({"metrics": []}))
    return f"{first}; {refused(run(['-m', 'finetune.compare', str(folder), str(folder)]), 'results.json')}"
