"""Wrong paths are refused before anything heavy is imported."""

import subprocess
import sys
from pathlib import Path

import pytest

from skesl_mug.console import check_writable
from skesl_mug.errors import UserError

ROOT = Path(__file__).resolve().parents[1]
HEAVY = ("torch", "transformers", "sklearn", "scipy.stats", "matplotlib", "pandas", "mediapipe")


def run_and_look(script: str, *flags: str) -> tuple[str, list[str]]:
    """The command's stderr, and which heavy libraries it had imported by its end."""
    code = (
        "import runpy, sys; sys.argv = sys.argv[1:]\n"
        "try:\n    runpy.run_path(sys.argv[0], run_name='__main__')\n"
        f"finally:\n    print('IMPORTED', *[name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code, script, *flags], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2, done.stderr
    return done.stderr, done.stdout.split("IMPORTED", 1)[1].split()


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--data", "nowhere", "--lm", "embedded"], "--data nowhere: does not exist"),
        (["--data", "docs", "--lm", "embedded"], "docs: is not an utterance dataset"),
        (["--data", "README.md", "--lm", "./nowhere"], "./nowhere: no such folder"),
        (["--data", "README.md", "--encoder", "docs"], "--encoder docs: is not a pretrained encoder"),
        (["--data", "README.md", "--lm", "embedded", "--output", "README.md/run"], "README.md is a file"),
    ],
)
def test_fine_tuning_refuses_wrong_places_at_once(flags: list[str], said: str, tmp_path: Path) -> None:
    stderr, imported = run_and_look("finetune/run_mug.py", "--dataset", "custom", "--output", str(tmp_path / "run"), *flags)
    assert said in stderr
    assert len(stderr.splitlines()) == 1
    assert imported == []


@pytest.mark.parametrize("script", ["finetune/predict.py", "finetune/web.py"])
def test_a_model_that_is_not_there_is_refused_at_once(script: str) -> None:
    given = ["README.md"] if script.endswith("predict.py") else []
    stderr, imported = run_and_look(script, *given, "--model", "./nowhere")
    assert stderr.startswith("error: --model ./nowhere: no such run")
    assert "transformers" not in imported


def test_an_unwritable_folder_is_reported(tmp_path: Path) -> None:
    check_writable(tmp_path / "new" / "deeper")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"--output .*file.* is a file"):
        check_writable(tmp_path / "file" / "run")
