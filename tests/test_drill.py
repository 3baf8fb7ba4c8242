"""Tests of the drill's own code; `make drill` runs the drill."""

import random
import signal
from pathlib import Path

import pytest
from drill import broken_input, broken_runs, disturbed, places  # noqa: F401 - their faults enter the list
from drill.frame import FAULTS, Ended, Fault, NotHeldError, after, disturb, done, refused, run
from drill.fuzz import Target, try_inputs
from drill.fuzz_media import EDITS, MAKERS, edit, fuzz, make_case
from drill.fuzz_targets import TARGETS
from drill.ground import JOBS, Ground
from drill.table import FAULTS_MARK, Row, put_between_marks, write_table
from hypothesis import strategies as st

from lexicons import UserError

ROOT = Path(__file__).resolve().parents[1]


def entry(command: str, name: str) -> Fault:
    return next(fault for fault in FAULTS if (fault.command, fault.name) == (command, name))


def test_fault_names_are_unique_and_every_job_is_disturbed() -> None:
    assert len({(fault.command, fault.name) for fault in FAULTS}) == len(FAULTS) > 150
    for job in JOBS:
        assert {"Ctrl-C, twice", "two jobs on one output", "full disk"} <= {fault.name for fault in FAULTS if fault.command == job.name}


def test_broken_promises_are_detected() -> None:
    assert refused(Ended(2, "", "error: a.csv: is empty\n", 0.1), "a.csv") == "exit 2: error: a.csv: is empty"
    for ended in (
        Ended(0, "done", "", 0.1),
        Ended(2, "", "error: b.csv: is empty\n", 0.1),
        Ended(2, "", "error: a.csv\nand more\n", 0.1),
        Ended(2, "", "Traceback (most recent call last):\na.csv\n", 0.1),
    ):
        with pytest.raises(NotHeldError):
            refused(ended, "a.csv")
    with pytest.raises(NotHeldError, match="stderr"):
        done(Ended(0, "", "a library warns", 0.1))
    done(Ended(0, "", "clips:  10%|#    | 1/10\rclips: 100%|#####| 10/10\n", 0.1))


def test_a_command_is_run_and_killed() -> None:
    assert done(run(["-c", "print(1)"])) == "done"
    killed = disturb(["-c", "import time; time.sleep(60)"], signal.SIGKILL, after(0.2))
    assert killed is not None
    assert killed.status == -signal.SIGKILL
    assert disturb(["-c", "pass"], signal.SIGKILL, after(30)) is None


def test_one_fault(tmp_path: Path) -> None:
    ground = Ground(tmp_path, random.Random(1))
    assert "bad.json" in entry("remask", "lexicon file that is not JSON").check(ground)


def test_the_table_goes_between_its_marks(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n<!-- {FAULTS_MARK} -->\nold\n<!-- /{FAULTS_MARK} -->\nafter\n")
    seen = "exit 2: error: …/run-abc123/labels.csv: a|b"
    write_table(page, [Row(Fault("odd csv", "run.py", "exit 2", lambda ground: ""), seen, True, 1.0)])
    text = page.read_text()
    assert "| odd csv | exit 2 | exit 2: error: …/labels.csv: a\\|b |" in text
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "old" not in text
    with pytest.raises(UserError, match="has no marks"):
        put_between_marks(page, "other", "x")


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_fuzzing_some_inputs(target: Target) -> None:
    assert try_inputs(target, 0, start=1, each_round=15) >= 10


def test_fuzzing_finds_a_fault() -> None:
    def check(number: int) -> None:
        assert number < 50

    with pytest.raises(AssertionError):
        try_inputs(Target("numbers", "below 50", st.integers(0, 100), check), 0, start=1, each_round=100)


def test_the_page_has_all_faults_and_says_what_is_not_drilled() -> None:
    page = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
    for fault in FAULTS:
        assert f"| {fault.name} | {fault.expected} |" in page, f"{fault.command}: {fault.name}: run `make drill`"
    for target in TARGETS:
        assert f"| {target.name} |" in page
    assert "not drilled" in page


def test_damaged_recordings_are_the_same_for_a_seed_and_read_without_a_fault(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = [name for name in MAKERS if name.endswith((".wav", ".mkv", ".mp3"))]
    for name in names:
        MAKERS[name](tmp_path / name)
    bases = [tmp_path / name for name in names]
    cases = [make_case(number, 1, bases, tmp_path)[0].read_bytes() for number in (0, 0, 1)]
    assert cases[0] == cases[1] != cases[2]
    assert all(edit(b"x" * 100, how, random.Random(1), bases) != b"x" * 100 for how in EDITS)
    assert fuzz(0.02, 1, tmp_path / "faults", only=3) == 0
    assert "1 files (seed 1)" in capsys.readouterr().out
