"""Mutation tests: each mutant breaks one line of arithmetic, and a test must fail: `python tests/mutations.py`.

The code is copied to a temporary folder and changed there, and the named test file is run. A mutant that survives shows a missing test.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Mutant:
    """A change of one line, and the tests that must fail with it."""

    file: str
    before: str
    after: str
    tests: str


MUTANTS = [
    Mutant("finetune/metrics.py", "predicted >= 0, truth >= 0", "predicted > 0, truth >= 0", "finetune_metrics"),
    Mutant("finetune/metrics.py", "f1_score(truth, predicted", "f1_score(predicted, truth", "finetune_metrics"),
    Mutant("finetune/metrics.py", 'side="left") - 1', 'side="right") - 1', "finetune_metrics"),
    Mutant("finetune/model/alignment.py", "similarity.T, target", "similarity, target", "finetune_alignment"),
    Mutant("finetune/model/alignment.py", "/ (4.0 * first.shape[1] ** 2)", "/ (2.0 * first.shape[1] ** 2)", "finetune_alignment"),
    Mutant("finetune/labels/ulgm.py", "(epoch - 1) / (epoch + 1) * old", "epoch / (epoch + 1) * old", "finetune_ulgm"),
    Mutant("finetune/labels/ulgm.py", "0.5 * (y + own - fused)", "0.5 * (y + fused - own)", "finetune_ulgm"),
    Mutant("finetune/labels/mucn_meta.py", "value - options.alpha * inner", "value + options.alpha * inner", "finetune_labels"),
    Mutant("finetune/labels/mucn_meta.py", "denoise(updated, batch.projected", "denoise(updated, batch.unimodal", "finetune_labels"),
    Mutant(
        "finetune/labels/crossfit.py", "torch.full_like(y, levels", "torch.zeros_like(y) * torch.full_like(y, levels", "finetune_labels"
    ),
    Mutant(
        "finetune/significance.py",
        "members[place] for place in random.integers(len(names), size=len(names))",
        "members[place] for place in range(len(names))",
        "finetune_significance",
    ),
    Mutant("finetune/significance.py", "found.append((one - other)", "found.append((one + other)", "finetune_compare"),
    Mutant("finetune/training/stages.py", "/ here.sum().clamp(min=1.0)", "/ len(here)", "finetune_stages"),
    Mutant("finetune/studies/interaction.py", "one + other - least", "one + other + least", "finetune_studies_interaction"),
    Mutant("pretrain/crossmodal.py", "attended.masked_fill(~source.present, 0.0)", "attended", "pretrain_encoder"),
    Mutant("pretrain/crossmodal.py", "self.num_heads) ** -0.5", "self.num_heads) ** -0.25", "pretrain_encoder"),
    Mutant("pretrain/objective.py", "real.sum(dim=2).clamp(min=1)", "real.size(2)", "pretrain_encoder"),
    Mutant("pretrain/objective.py", ".abs() * real", ".square() * real", "pretrain_encoder"),
    Mutant("pretrain/optimisation.py", "decay ** ", "decay * ", "pretrain_loop"),
    Mutant("preprocessing/audio.py", "/ WINDOW)[None]", "/ HOP)[None]", "preprocessing_audio"),
    Mutant("preprocessing/chroma.py", "np.roll(octave, 1, axis=0)", "np.roll(octave, 2, axis=0)", "preprocessing_audio"),
    Mutant("preprocessing/vision/geometry.py", "turned @ np.swapaxes", "turned @ np.asarray", "preprocessing_vision"),
    Mutant("lexicons/lexicon.py", "key=lambda match: abs(match.intensity)", "key=lambda match: match.intensity", "lexicons_lexicon"),
    Mutant("lexicons/context.py", "-step if value < 0 else step", "step", "lexicons_context"),
]


def survives(mutant: Mutant) -> bool:
    """Whether the tests pass with the broken code."""
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch) / "house"
        shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".git", ".venv*", "demo*", "runs", ".mypy_cache", ".ruff_cache", "build"))
        file = copy / mutant.file
        code = file.read_text(encoding="utf-8")
        if code.count(mutant.before) != 1:
            raise SystemExit(f"{mutant.file}: contains {mutant.before!r} {code.count(mutant.before)} times instead of once; update MUTANTS")
        file.write_text(code.replace(mutant.before, mutant.after), encoding="utf-8")
        command = [sys.executable, "-m", "pytest", "-q", "-x", f"tests/test_{mutant.tests}.py"]
        environment = {**os.environ, "PYTHONPATH": str(copy)}
        return subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True).returncode == 0


def main() -> None:
    """Try all mutants and print which survive."""
    alive = []
    for mutant in MUTANTS:
        alive += [mutant] if survives(mutant) else []
        verdict = "SURVIVES" if mutant in alive[-1:] else "caught"
        print(f"{verdict:9} {mutant.file}: {mutant.before}  ->  {mutant.after}", flush=True)
    print(f"{len(MUTANTS) - len(alive)} of {len(MUTANTS)} caught")
    sys.exit(1 if alive else 0)


if __name__ == "__main__":
    main()
