"""Gates on the modalities: what adding a useless modality costs, and whether a useful one is used in full.

    MSA_DATA=FOLDER python -m benchmarks.gates --output FOLDER --corpora mosi noise useful sims mmmo

Corpora: `mosi` has the real averaged COVAREP; `noise` the same texts with Gaussian noise as audio; `useful` the same with synthetic audio,
one of whose 73 columns is y plus noise of the same deviation; `sims` CH-SIMS with its synthetic audio and vision; `mmmo` the real ICT-MMMO.
Each seed evaluates on a fifth of train by video (MMMO: by utterance) and stops early on another tenth; `valid` is not read. The language
model is frozen; one line per figure.

Rules, set before the first run, five paired seeds, each for MUG and for the model without unimodal tasks:

1. useless (`mosi`, `noise`): |MAE(all) - MAE(text only)| <= the standard deviation of text only over the seeds;
2. useful (`useful`, `sims`): MAE(gate) - MAE(no gate) <= the larger standard deviation of the two over the seeds;
3. of the gates that hold 1 and 2, the one with the lowest mean MAE becomes the default; if none does, the default is no gate.
"""

import os
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from skesl_mug.console import CommandOptions, run_command

if TYPE_CHECKING:
    from finetune.corpora import LabelledCorpus, LabelledSplit

DATA = Path(os.environ.get("MSA_DATA", ""))
FILES = {
    "mosi": "mosi/mosi_text_audio_train_valid.pkl",
    "sims": "sims/sims_made_av_train_valid.pkl",
    "mmmo": "mmmo/mmmo_audio_vision_train_valid.pkl",
}


@dataclass(kw_only=True)
class GatesOptions(CommandOptions):
    """Compare gates on parts of train."""

    output: Path
    """Folder for the pieces; what is there is not trained again."""
    corpora: list[str] = field(default_factory=lambda: ["mosi", "noise", "useful", "sims", "mmmo"])
    """Corpora."""
    gates: list[str] = field(default_factory=lambda: ["none", "held-out"])
    """Gates to compare."""
    variants: list[str] = field(default_factory=lambda: ["plain", "full"])
    """`plain` (no unimodal tasks), `full` (MUG)."""
    seeds: list[int] = field(default_factory=lambda: [1, 2, 3, 4, 5])
    """Seeds of training and of the parts."""
    lm: str = "embedded"
    """Language model (CH-SIMS: one that knows Chinese)."""
    epochs: int = 6
    """Maximum epochs of each stage."""
    fusion: str = "joint"
    """`--model.fusion`: joint (both paths of a modality), or unimodal (many times faster)."""
    learning_rate: float = 1e-3
    """Learning rate of the networks."""


def corpus_of(name: str, seed: int) -> "LabelledCorpus":
    """The corpus with train, dev and the evaluated part all taken from its train split."""
    import numpy as np

    from finetune.corpora import load_corpus
    from finetune.corpora.splits import carve_by_video

    file = name if name in FILES else "mosi"
    dataset = "custom" if file == "mmmo" else file
    corpus = load_corpus(dataset, DATA / FILES[file], label_range=(-2, 2) if file == "mmmo" else None, dev_share=0.01)
    train: LabelledSplit = corpus.splits["train"]
    if name in ("noise", "useful"):
        random = np.random.default_rng(7)
        audio = random.normal(size=(len(train), 1, corpus.audio_width)).astype(np.float32)
        if name == "useful":
            audio[:, 0, 0] += train.label / train.label.std()
        train.audio = list(audio)
    rest, evaluated, _ = carve_by_video(train, 0.2, 100 + seed)
    kept = train.select(rest)
    fit, dev, _ = carve_by_video(kept, 0.12, 200 + seed)
    splits = {"train": kept.select(fit), "dev": kept.select(dev), "valid": train.select(evaluated)}
    return replace(corpus, splits=splits, sha256=f"{corpus.sha256}-{name}-{seed}")


def main(options: GatesOptions) -> None:
    """Train and print."""
    import numpy as np

    from finetune.options import ModelOptions, MugOptions, TrainingOptions
    from finetune.training.experiment import Experiment, set_threads
    from finetune.training.trainer import Setting
    from finetune.training.variants import Start, Variant

    for name in options.corpora:
        scores: dict[tuple[str, str], list[float]] = {}
        used: dict[str, list[object]] = {}
        for seed in options.seeds:
            corpus = corpus_of(name, seed)
            for gate in options.gates:
                training = TrainingOptions(align_epochs=options.epochs, joint_epochs=options.epochs, lr=options.learning_rate)
                o = MugOptions(
                    dataset=corpus.dataset, data=corpus.source, output=options.output, lm=options.lm, freeze_lm=True, seeds=[seed],
                    model=ModelOptions(gates=gate, fusion=options.fusion), training=training,  # type: ignore[arg-type]
                )  # fmt: skip
                set_threads(o)
                variants = [Variant("full", "mucn-crossfit"), Variant("plain", "none", Start(unimodal_tasks=False))]
                variants = [variant for variant in variants if variant.name in options.variants]
                if gate == options.gates[0]:
                    variants += [Variant(f"{m}_only", "none", Start.only(m)) for m in corpus.modalities]
                setting = Setting(f"{name}-{gate}-{options.fusion}", o, variants)
                experiment = Experiment([setting], [seed], corpus, options.output / f"{name}-{seed}")
                experiment.run()
                folder = experiment.seed_folder(setting, seed)
                for variant in variants:
                    found = folder.results(variant.name)
                    scores.setdefault((variant.name, gate), []).append(found["metrics"]["MAE"])
                    if "gates" in found["facts"]:
                        used.setdefault(gate, []).append(found["facts"]["gates"])
        baseline = {variant: values for (variant, gate), values in scores.items() if gate == options.gates[0]}
        reference = next((baseline[key] for key in ("text_only", "audio_only") if key in baseline), None)
        for (variant, gate), values in scores.items():
            line = f"{name:<7} {variant:<12} gates {gate:<9} MAE {np.mean(values):.3f} ± {np.std(values):.3f}"
            for what, other in (("first gate", baseline.get(variant)), ("single modality", reference)):
                if other is not None and other is not values:
                    gap = np.subtract(values, other)
                    line += f"   minus {what} {gap.mean():+.3f} (paired sd {gap.std(ddof=1) if len(gap) > 1 else 0:.3f})"
            print(line, flush=True)
        for gate, facts in used.items():
            print(f"{name:<7} gates {gate}: {facts}", flush=True)


if __name__ == "__main__":
    run_command(GatesOptions, main)
