"""Options, configs, exit status."""

import errno
import gc
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml

from lexicons import UserError
from skesl_mug.console import CommandOptions, next_command, one_line, read_yaml_flags, run_command
from skesl_mug.interruption import INTERRUPTED, ctrl_c_deferred
from skesl_mug.run_folder import with_defaults


@dataclass(kw_only=True)
class Inner:
    rate: float = 0.5
    deep: bool = True


@dataclass(kw_only=True)
class Made(CommandOptions):
    """A made command."""

    output: Path
    """Where it goes."""
    seeds: list[int] = field(default_factory=lambda: [1])
    name: str | None = None
    inner: Inner = field(default_factory=Inner)
    loud: bool = False


def run(argv, main=lambda options: None):
    seen = []
    with pytest.raises(SystemExit) as end:
        run_command(Made, lambda options: (seen.append(options), main(options)), argv)
    return end.value.code, seen[0] if seen else None


def test_flags():
    code, options = run(["--output", "x", "--seeds", "3", "4", "--inner.rate", "0.25", "--inner.no-deep", "--loud"])
    assert code == 0
    assert (options.output, options.seeds, options.inner, options.loud) == (Path("x"), [3, 4], Inner(rate=0.25, deep=False), True)


def test_config_file_then_flags(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("output: from_file\nseeds: [7, 8]\nname: null\nloud: true\ninner:\n  rate: -0.75\n  deep: false\n")
    code, options = run(["--config", str(path), "--output", "flag"])
    assert code == 0
    assert (options.output, options.seeds, options.name, options.loud) == (Path("flag"), [7, 8], None, True)
    assert options.inner == Inner(rate=-0.75, deep=False)
    assert run([f"--config={path}"])[1].output == Path("from_file")


def test_printed_config_is_a_config(tmp_path, capsys):
    code, options = run(["--output", "x", "--seeds", "5", "6", "--inner.no-deep", "--print-config"])
    assert (code, options) == (0, None)
    printed = capsys.readouterr().out
    assert yaml.safe_load(printed)["inner"] == {"rate": 0.5, "deep": False}
    path = tmp_path / "c.yaml"
    path.write_text(printed)
    assert run(["--config", str(path)])[1].seeds == [5, 6]


@pytest.mark.parametrize(
    ("content", "message"),
    [("a: [", "is not YAML"), ("- a\n", "holds no options"), (None, "cannot be read"), ("", "holds no options")],
)
def test_faulty_config(tmp_path, capsys, content, message):
    path = tmp_path / "c.yaml"
    if content is not None:
        path.write_text(content)
    assert run(["--config", str(path), "--output", "x"])[0] == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_unknown_option_in_file_or_flags(tmp_path, capsys):
    path = tmp_path / "c.yaml"
    path.write_text("outptu: x\n")
    assert run(["--config", str(path), "--output", "x"])[0] == 2
    assert "outptu" in capsys.readouterr().err
    assert run(["--output", "x", "--seeds", "many"])[0] == 2


def test_faults_are_one_line_and_status_2(capsys):
    def fails(options):
        raise UserError("this file:\n is wrong")

    assert run(["--output", "x"], fails)[0] == 2
    captured = capsys.readouterr()
    assert captured.err == "error: this file: is wrong\n"
    assert run(["--output", "x", "--debug"], fails)[0] == 2
    assert "Traceback" in capsys.readouterr().err


def test_interruption_is_130_and_bugs_are_not_hidden(capsys):
    def stop(options):
        raise KeyboardInterrupt

    assert run(["--output", "x"], stop)[0] == 130
    assert "run the same command again" in capsys.readouterr().err

    def bug(options):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_command(Made, bug, ["--output", "x"])


def test_one_line():
    assert one_line(" a\n\t b  c\n") == "a b c"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"output: 2024-99-99\n", "is not YAML"),
        (b'output: "\\UFFFFFFFF"\n', "is not YAML"),
        (b"a: " + b"[" * 3000, "nested too deep"),
        (b"&a\nloud: *a\n", "nested too deep"),
    ],
)
def test_odd_yaml_is_one_line(tmp_path, capsys, content, says):
    path = tmp_path / "c.yaml"
    path.write_bytes(content)
    assert run(["--config", str(path)])[0] == 2
    told = capsys.readouterr().err
    assert f"--config {path}" in told
    assert says in told
    assert told.count("\n") == 1


def test_an_error_of_the_system_names_its_file_or_the_output(capsys):
    def closed(options):
        raise PermissionError(errno.EACCES, "Permission denied", "/closed/x")

    def full(options):
        raise OSError(errno.ENOSPC, "No space left on device")

    assert run(["--output", "o"], closed)[0] == 2
    assert capsys.readouterr().err == "error: /closed/x: cannot be used (Permission denied); choose a location you can access\n"
    assert run(["--output", "o"], full)[0] == 2
    assert "--output o: cannot be used (No space left on device); free some space" in capsys.readouterr().err


@pytest.mark.parametrize("command", [["finetune/run_mug.py"], ["-m", "finetune.studies", "ablation"]])
def test_ctrl_c_while_libraries_are_imported_is_one_line(command, tmp_path):
    (tmp_path / "data.pkl").touch()  # is there, so that the libraries are needed next
    flags = ["--dataset", "mosi", "--data", str(tmp_path / "data.pkl"), "--lm", "embedded", "--output", str(tmp_path / "run")]
    began = subprocess.Popen(
        [sys.executable, *command, *flags],
        cwd=Path(__file__).resolve().parents[1],
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        env={**os.environ, "PYTHONPROFILEIMPORTTIME": "1"},
    )
    told = ""
    while "torch._utils" not in told:  # in the middle of the largest of them
        line = began.stderr.readline()
        assert line, f"it ended without torch: {told[-300:]}"
        told += line
    began.send_signal(signal.SIGINT)
    rest = [line for line in began.communicate(timeout=60)[1].splitlines() if line and not line.startswith("import time:")]
    assert [line for line in rest if not line.startswith("Loading libraries")] == [INTERRUPTED.strip()]
    assert began.returncode in (130, -signal.SIGINT)


@pytest.fixture
def sigint() -> Iterator[None]:
    """Python's own way with Ctrl-C, which a test run in the background does not have."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_a_deferred_ctrl_c_comes_at_the_end(sigint: None) -> None:
    done: list[str] = []

    def interrupted() -> None:
        with ctrl_c_deferred():
            os.kill(os.getpid(), signal.SIGINT)
            done.append("all of the block")

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert done == ["all of the block"]
    with ctrl_c_deferred():
        done.append("nothing comes where nothing came")
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with ctrl_c_deferred():
        os.kill(os.getpid(), signal.SIGINT)  # ignored before, ignored here
    assert len(done) == 2


def test_the_next_command_is_one_that_can_be_typed(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "argv", ["preprocessing/run.py"])
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent))
    assert next_command("predict", "finetune/predict.py") == "python finetune/predict.py"
    monkeypatch.setenv("PATH", str(tmp_path))  # an environment that is not activated
    command = next_command("predict", "finetune/predict.py")
    assert command.endswith("/python finetune/predict.py")
    assert (Path.cwd() / command.split()[0]).exists()
    monkeypatch.setattr(sys, "argv", ["skesl-mug preprocess"])
    assert next_command("predict", "finetune/predict.py").endswith("skesl-mug predict")


def test_stored_options_gain_the_defaults_of_new_ones():
    defaults = {"rate": 0.1, "objective": {"word": 1.0, "rated": 0.0}, "layer": "last"}
    stored = {"rate": 0.5, "objective": {"word": 0.0}, "gone": 3}
    assert with_defaults(stored, defaults) == {"rate": 0.5, "objective": {"word": 0.0, "rated": 0.0}, "layer": "last", "gone": 3}
    assert stored == {"rate": 0.5, "objective": {"word": 0.0}, "gone": 3}


def test_config_files_of_an_earlier_version_work(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("made: true\nmodel: {common_space: true, residual: true, quiet_blocks: false}\ntraining: {alternate: false}\n")
    flags = read_yaml_flags(config)
    assert sorted(flags) == sorted(["--synthetic", "--mechanisms", "common-space", "residual", "--model.no-zero-init-blocks"])
    assert "made is now synthetic" in capsys.readouterr().err
    config.write_text("synthetic: true\nmodel: {dim: 3}\n")
    assert read_yaml_flags(config) == ["--synthetic", "--model.dim", "3"]
    assert capsys.readouterr().err == ""


def test_a_finished_command_exits_without_a_last_garbage_collection(monkeypatch: pytest.MonkeyPatch) -> None:
    registered: list[object] = []
    monkeypatch.setattr("atexit.register", lambda function, *arguments: registered.append(function))
    with pytest.raises(SystemExit) as left:
        run_command(CommandOptions, lambda options: None, [])
    assert left.value.code == 0
    assert gc.freeze in registered
