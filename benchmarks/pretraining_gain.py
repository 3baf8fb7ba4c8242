"""Which pretraining helps? Text-only pretraining, then fine-tuning on few labels of CMU-MOSI.

    python benchmarks/pretraining_gain.py --output runs/gain

Every arm starts from the same language model and is fine-tuned in the same way (labels, order, steps, rates; the last epoch counts,
nothing is chosen on the evaluated split). All arms except `authors` differ only in their starting weights:

    none           the language model
    word           SKESL's objective: the intensity of one masked word, on unlabelled sentences
    shuffled       the same with the intensities of other sentences: the effect of text and loss only
    authors        SKESL's objective by the authors' recipe: LM frozen, one block four times, raw residual; fine-tuned at their rates
    rated          predicting the ratings of whole sentences
    word-rated     both together
    rated-distil   ratings, and for unlabelled sentences with masked sentiment words the score that the arm `rated` gives them unmasked

Each result is a file under --output; the same command resumes, and `--report` prints the table of what is there.
"""

import json
import os
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

if __package__ in (None, ""):
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from skesl_mug.console import CommandOptions, run_command
from skesl_mug.errors import UserError

ArmName = Literal["none", "word", "shuffled", "authors", "rated", "word-rated", "rated-distil"]
RATING = ("rated", "word-rated", "rated-distil")
METRICS = ("Corr", "MAE", "Non0_acc_2")
HEAD_WIDTH = 64
CORPORA = Path(os.environ.get("MSA_DATA", "."))
"""The folder of research data, by the environment variable `MSA_DATA`."""


@dataclass(kw_only=True)
class GainOptions(CommandOptions):
    """Measure the gain of pretraining on MOSI transcripts with few labels, with controls."""

    output: Path
    """Folder of datasets, pretraining runs, fine-tuning results and the table."""
    sentences: Path = CORPORA / "reviews" / "sentences.txt"
    """Unlabelled sentences, one a line."""
    labelled: Path = CORPORA / "mosi" / "mosi_text_audio_train_valid.pkl"
    """MOSI in MMSA's format; only its transcripts and labels are read."""
    lm: str = "embedded"
    """The language model under all arms."""
    arms: list[ArmName] = field(default_factory=lambda: ["none", "rated", "word", "word-rated", "rated-distil", "authors", "shuffled"])
    """Which arms to run, in this order."""
    sizes: list[int] = field(default_factory=lambda: [0, 64, 256, 1284])
    """Numbers of labelled training utterances; a smaller one is a random subset of its own for every seed. 0: the arms that rate."""
    steps: list[int] = field(default_factory=lambda: [0, 80, 160, 320])
    """Updates of a fine-tuning run, one number for each of --sizes."""
    seeds: list[int] = field(default_factory=lambda: [1, 2, 3, 4, 5])
    """Each decides the labelled subset, the order, dropout and the new weights of a fine-tuning run."""
    pretrain_seeds: list[int] = field(default_factory=lambda: [1, 2])
    """Of the pretraining runs; every fine-tuning seed is run from each."""
    rows: int = 0
    """Number of sentences, from a seeded shuffle; 0: all."""
    epochs: int = 2
    """Passes of every pretraining (the authors' recipe, whose LM is frozen: ten times as many)."""
    pretrain_lm_lr: float = 5e-5
    """Learning rate of the language model in every pretraining."""
    pretrain_lr: float = 1e-4
    """Learning rate of blocks and heads in every pretraining."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Of pretraining and fine-tuning."""
    batch_size: int = 16
    """Batch size of fine-tuning."""
    lm_lr: float = 5e-5
    """Learning rate of the language model in fine-tuning."""
    lr: float = 2e-4
    """Learning rate of the blocks in fine-tuning (the head: five times that)."""
    report: bool = False
    """Only print the table of what is there."""

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        if len(self.steps) != len(self.sizes):
            raise UserError(f"--steps: needs one number for each of --sizes ({len(self.sizes)}), got {len(self.steps)}")


# --- unlabelled text -> utterance datasets


def read_sentences(options: GainOptions) -> list[str]:
    import numpy as np

    if not options.sentences.is_file():
        raise UserError(f"--sentences {options.sentences}: does not exist; pass a text file with one sentence per line")
    lines = [line.strip() for line in options.sentences.read_text(encoding="utf-8").splitlines() if line.strip()]
    order = np.random.default_rng(0).permutation(len(lines))
    return [lines[place] for place in (order[: options.rows] if options.rows else order)]


def split_words(text: str) -> list[Any]:
    from preprocessing.schema import Word

    words, end = [], 0
    for token in text.split():
        start = text.index(token, end)
        end = start + len(token)
        words.append(Word(token, start, end))
    return words


def make_dataset(folder: Path, sentences: list[str], shuffled: bool) -> Path:
    """An utterance dataset without audio and vision; shuffled: with the intensities of other sentences."""
    import numpy as np

    from lexicons.sources import load_lexicon
    from preprocessing.masking import find_masks, generator_for
    from preprocessing.schema import DatasetInfo, Utterance
    from preprocessing.store import INFO_FILE, write_dataset

    if (folder / INFO_FILE).is_file():
        return folder
    lexicon = load_lexicon("vader")
    rows = []
    for number, text in enumerate(sentences):
        name = f"s{number:06d}"
        words = split_words(text)
        masks = find_masks(words, lexicon, generator_for(name, 0), text=text)
        rows.append(Utterance(name, name, "", 0.0, 0.0, "en", text, words=words, masks=masks))
    rows = [row for row in rows if row.masks]
    if shuffled:
        values = [row.masks[0].intensity for row in rows]
        for row, place in zip(rows, np.random.default_rng(1).permutation(len(rows)), strict=True):
            row.masks[0].intensity = values[place]
    name = "sentences, intensities shuffled" if shuffled else "sentences"
    write_dataset(folder, rows, DatasetInfo(corpus={"name": name, "root": ""}, lexicon=lexicon.describe()))
    return folder


# --- pretraining


def pretrain_arm(arm: ArmName, seed: int, options: GainOptions) -> Path:
    """The folder of the arm's pretrained weights; pretrains if it is absent."""
    from pretrain.options import EncoderShape, ObjectiveOptions, PretrainOptions
    from pretrain.pretraining import run_pretraining

    run = options.output / "pretrain" / f"{arm}-{seed}"
    if (run / "results.json").is_file():
        return run
    data = []
    if arm != "rated":
        name = "shuffled" if arm == "shuffled" else "sentences"
        data = [str(make_dataset(options.output / "data" / name, read_sentences(options), arm == "shuffled"))]
    shape = EncoderShape(share_blocks=True, residual="raw", feed_forward="linear", dropout=0.5) if arm == "authors" else EncoderShape()
    run_pretraining(
        PretrainOptions(
            data=data,
            output=run,
            lm=options.lm,
            freeze_lm=arm == "authors",
            epochs=options.epochs * (10 if arm == "authors" else 1),
            encoder=shape,
            objective=ObjectiveOptions(
                word=0.0 if arm in ("rated", "rated-distil") else 1.0,
                rated=1.0 if arm in RATING else 0.0,
                distil=1.0 if arm == "rated-distil" else 0.0,
            ),
            teacher=str(pretrain_arm("rated", seed, options)) if arm == "rated-distil" else "starter",
            lr=options.pretrain_lr,
            lm_lr=options.pretrain_lm_lr,
            valid_share=0.05,
            patience=0,
            precision=options.precision,
            seed=seed,
            trackers=[],
            checkpoint_steps=100,
            keep_checkpoints=1,
        )
    )
    return run


def autocast(options: GainOptions) -> Any:
    import torch

    from pretrain.pretraining import resolve_precision

    return torch.autocast("cpu", dtype=torch.bfloat16, enabled=resolve_precision(options.precision) == "bf16")


# --- fine-tuning


def starting_point(arm: ArmName, pretrain_seed: int, seed: int, options: GainOptions) -> tuple[Any, Any]:
    """The arm's encoder without audio and vision, and the head on it; what is new comes from the seed."""
    import torch

    from pretrain.encoder import SkeslModel, load_encoder, load_rating_head
    from pretrain.objective import RatingHead

    torch.manual_seed(seed)
    if arm == "none":
        encoder = SkeslModel.from_text_model(options.lm, 0, 0)
        encoder.crossmodal.zero_init()  # random blocks would be a weak opponent
    else:
        encoder = load_encoder(pretrain_arm(arm, pretrain_seed, options), 0, 0)[0]
    torch.manual_seed(seed)
    head = RatingHead(encoder.config.hidden_size, HEAD_WIDTH, 0.1)
    if arm in RATING:
        known = load_rating_head(pretrain_arm(arm, pretrain_seed, options))
        assert known is not None
        head.load_state_dict(known.state_dict())
    return encoder, head


def fine_tune(arm: ArmName, pretrain_seed: int, size: int, steps: int, seed: int, corpus: Any, options: GainOptions) -> dict[str, Any]:
    """Train on `size` labelled utterances, predict the evaluated split."""
    import numpy as np
    import torch

    from finetune.metrics import score
    from pretrain.batches import pad_tokens
    from pretrain.encoder import load_tokenizer
    from pretrain.objective import mean_of_tokens
    from pretrain.optimisation import learning_rate_schedule
    from pretrain.tokens import tokenise

    encoder, head = starting_point(arm, pretrain_seed, seed, options)
    tokenizer = load_tokenizer(options.lm)
    (texts, labels), (test_texts, test_labels) = corpus
    generator = np.random.default_rng(seed)
    chosen = generator.permutation(len(texts))[:size]
    train, test = (tokenise(rows, tokenizer, 64) for rows in ([texts[place] for place in chosen], test_texts))
    targets = torch.as_tensor(labels[chosen], dtype=torch.float32)
    lm_lr, lr, head_lr = (5e-6, 5e-6, 1e-4) if arm == "authors" else (options.lm_lr, options.lr, 5 * options.lr)
    parts = [(encoder.text_model, lm_lr), (encoder.crossmodal, lr), (head, head_lr)]
    groups = [{"params": list(part.parameters()), "base": rate} for part, rate in parts]
    optimizer = torch.optim.AdamW(groups, weight_decay=0.01, fused=True)

    def predict(rows: list[list[int]]) -> Any:
        ids, mask = pad_tokens(rows, tokenizer.pad_token_id)
        with autocast(options):
            return head(mean_of_tokens(encoder(ids, mask).last_hidden_state.float(), mask))

    schedule = learning_rate_schedule(steps, round(0.1 * steps))
    encoder.train()
    head.train()
    order: list[int] = []
    for step in range(steps):
        while len(order) < options.batch_size:
            order += generator.permutation(size).tolist()
        batch, order = order[: options.batch_size], order[options.batch_size :]
        for group in optimizer.param_groups:
            group["lr"] = group["base"] * schedule(step)
        loss = (predict([train[place] for place in batch]) - targets[batch]).abs().mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_([p for group in groups for p in group["params"]], 1.0)
        optimizer.step()
        optimizer.zero_grad()
    encoder.eval()
    head.eval()
    with torch.no_grad():
        predictions = torch.cat([predict(test[a : a + 64]) for a in range(0, len(test), 64)]).float().numpy()
    return {"metrics": score(predictions, test_labels, "mosi"), "predictions": np.round(predictions.astype(float), 4).tolist()}


def read_labelled(options: GainOptions) -> Any:
    """((texts, labels) of the whole train split, the same of the evaluated one)."""
    import numpy as np

    from finetune.corpora import load_corpus

    corpus = load_corpus("mosi", options.labelled)
    evaluated = corpus.splits[corpus.evaluated_on]
    parts = [corpus.splits["train"]] + ([corpus.splits["dev"]] if corpus.evaluated_on == "valid" else [])  # what was carved goes back
    texts = [text for part in parts for text in part.text or []]
    return (texts, np.concatenate([part.label for part in parts])), (list(evaluated.text or []), evaluated.label)


# --- the table


def collect(options: GainOptions) -> dict[tuple[str, int], dict[int, dict[str, list[float]]]]:
    """The metrics by arm and size, then by seed: one value for each pretraining seed."""
    found: dict[tuple[str, int], dict[int, dict[str, list[float]]]] = {}
    for path in sorted((options.output / "finetune").glob("*.json")):
        arm, _, size, seed = path.stem.rsplit("_", 3)
        runs = found.setdefault((arm, int(size)), {}).setdefault(int(seed), {name: [] for name in METRICS})
        metrics = json.loads(path.read_text())["metrics"]
        for name in METRICS:
            runs[name].append(metrics[name])
    return found


def print_table(options: GainOptions) -> None:
    """Mean over pretraining and fine-tuning seeds, deviation over the latter, means by pretraining seed, and tests paired against `none`:
    better in how many fine-tuning seeds (each the mean over its pretraining seeds), p of a paired t-test over them."""
    import numpy as np
    from scipy.stats import ttest_rel

    found = collect(options)
    for size in options.sizes:
        for arm in options.arms:
            runs, base = found.get((arm, size), {}), found.get(("none", size), {})
            if not runs:
                continue
            cells = []
            for name in METRICS:
                values = np.array([np.mean(runs[seed][name]) for seed in sorted(runs)])
                spread = f" ± {values.std(ddof=1):.3f}" if len(values) > 1 else ""
                columns = zip(*(runs[seed][name] for seed in sorted(runs)), strict=False)
                by_pretraining = "/".join(f"{np.mean(column):.3f}" for column in columns)
                both = sorted(set(runs) & set(base))
                test = ""
                if arm != "none" and len(both) > 1:
                    ours, other = ([np.mean(side[seed][name]) for seed in both] for side in (runs, base))
                    change = (np.array(ours) - np.array(other)) * (-1 if name == "MAE" else 1)
                    test = f", {(change > 0).sum()}/{len(both)}, p {ttest_rel(ours, other).pvalue:.3f}"
                cells.append(f"{values.mean():.3f}{spread} ({by_pretraining}{test})")
            print(f"| {size} | {arm} | {len(runs)} | " + " | ".join(cells) + " |")


def main(options: GainOptions) -> None:
    if options.report:
        print_table(options)
        return
    import torch

    torch.set_num_threads(1)
    corpus = read_labelled(options)
    print(f"{len(corpus[0][0])} labelled utterances to draw from, {len(corpus[1][0])} to evaluate on", flush=True)
    (options.output / "finetune").mkdir(parents=True, exist_ok=True)
    for arm in options.arms:
        for pretrain_seed in options.pretrain_seeds if arm != "none" else [0]:
            for size, steps in zip(options.sizes, options.steps, strict=True):
                if size == 0 and arm not in RATING:
                    continue
                for seed in options.seeds if size else [0]:
                    path = options.output / "finetune" / f"{arm}_{pretrain_seed}_{size}_{seed}.json"
                    if path.is_file():
                        continue
                    began = time.perf_counter()
                    result = fine_tune(arm, pretrain_seed, size, steps, seed, corpus, options)
                    path.write_text(json.dumps(result))
                    shown = "  ".join(f"{name} {result['metrics'][name]:.3f}" for name in METRICS)
                    print(f"{arm} ({pretrain_seed}) {size} seed {seed}: {shown}  ({time.perf_counter() - began:.0f} s)", flush=True)
    print_table(options)


if __name__ == "__main__":
    run_command(GainOptions, main)
