"""Train the starter model, once, into the cache: `python finetune/starter.py [--lm embedded-base]`."""

import sys
from pathlib import Path

if __package__ in (None, ""):  # run as a script: import from the checkout, never from this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from finetune.modalities import TEXT
from lexicons.rated import HUTTO, HUTTO_SHA256, rated_file
from pretrain.embedded_models import EMBEDDED
from pretrain.starter import STARTER, starter_options
from pretrain.text_models import resolve_text_model
from skesl_mug.cache import make_once
from skesl_mug.console import CommandOptions, next_command, run_command, say_loading

if TYPE_CHECKING:
    from finetune.prediction.recipe import Recipe


@dataclass(kw_only=True)
class StarterOptions(CommandOptions):
    """Train the starter model, which judges words alone, on sentences that people rated, and keep it in the cache.

    `predict` and `web` use it where no --model is given, and `finetune --encoder starter` starts from it.
    Around `embedded` it takes some seven minutes on one core; around `embedded-base` (better) half an hour and 8 GB.
    """

    lm: str = EMBEDDED
    """The language model: `embedded`, `embedded-base`, a hub name or a local folder."""
    rated: str = HUTTO
    """The rated texts: `hutto-gilbert` (fetched once with pip), its archive from a machine with network, or a csv of texts and scores."""


def main(options: StarterOptions) -> None:
    """Train it where it is not there, say how good it is and what comes next."""
    if options.rated != HUTTO:
        rated_file(options.rated)
    resolve_text_model(options.lm)
    say_loading("transformers")
    from finetune.prediction.recipe import Recipe

    folder = starter_model(options.lm, options.rated)
    for remark in Recipe.read(folder).remarks:
        print(remark)
    name = STARTER if options.lm == EMBEDDED else f"{STARTER}:{options.lm}"
    if starter_options(options.lm).output != starter_options(options.lm, options.rated).output:
        name = str(folder)
    model = "" if name == STARTER else f" --model {name}"
    print(f"model: {folder}")
    print(f"next:  {next_command('predict', 'finetune/predict.py')} VIDEO{model}")
    if name != str(folder):
        command = next_command("finetune", "finetune/run_mug.py")
        print(f"or:    {command} --dataset custom --data LABELLED --encoder {name} --few 64 --output RUN")


LABEL_RANGE = (-3.0, 3.0)
MAX_TOKENS = 128
MEASURED = Path(__file__).with_name("starter_measured.json")
"""What `python -m benchmarks.few_labels` measured of starters on CMU-MOSI's valid split, by language model."""


def starter_model(lm: str = EMBEDDED, rated: str = HUTTO) -> Path:
    """The folder of the starter around a language model, trained first where it is not in the cache.

    Raises:
        UserError: neither the rated sentences nor the language model can be had.
    """
    from finetune.prediction.recipe import Recipe
    from pretrain.pretraining import ensure_starter
    from pretrain.run_folder import read_results

    run = ensure_starter(lm, rated)
    folder = run.with_name(f"{run.name}-model")
    make_once(folder, lambda place: write_starter_model(run, lm, place))
    recipe, remarks = Recipe.read(folder), starter_remarks(read_results(run), lm)
    if recipe.remarks != remarks:  # another version of the toolkit, with other measurements, made this folder
        recipe.remarks = remarks
        recipe.write(folder)
    return folder


def write_starter_model(run: Path, lm: str, folder: Path) -> None:
    """Write the model of a starter's run: the multimodal path of `MugModel` with the run's own head on it, and no other modality."""
    import torch

    from finetune.model.networks import MugConfig, MugModel
    from finetune.prediction.model_folder import CARD_FILE
    from finetune.prediction.recipe import Recipe
    from lexicons.sources import load_lexicon
    from pretrain.encoder import load_encoder, load_rating_head, load_tokenizer
    from pretrain.run_folder import read_results, versions

    encoder, _ = load_encoder(run, 0, 0)
    head = load_rating_head(run)
    assert head is not None
    torch.manual_seed(0)  # of parts that nothing reads
    scale = max(map(abs, LABEL_RANGE))
    model = MugModel.around(encoder, MugConfig(dim=head.pool.out_features, fusion="encoder", label_scale=scale))
    model.start_from(head)
    model.save_pretrained(folder)
    load_tokenizer(run).save_pretrained(folder)
    results = read_results(run)
    recipe = Recipe(
        dataset="custom",
        label_range=LABEL_RANGE,
        modalities=[TEXT],
        unimodal_heads=[],
        source=str(results["data"]["rated"]["source"]),
        max_text_tokens=MAX_TOKENS,
        features={
            "audio": None,
            "vision": None,
            "asr": {"model": EMBEDDED, "engine": "faster-whisper", "language": "en"},
            "lexicon": load_lexicon("vader").describe(),
        },
        versions=versions(),
        remarks=starter_remarks(results, lm),
    )
    recipe.write(folder)
    (folder / CARD_FILE).write_text(starter_card(recipe, lm), encoding="utf-8")


def starter_card(recipe: "Recipe", lm: str) -> str:
    """The card of a starter, for whoever gets a saved or pushed one."""
    from finetune.prediction.model_folder import LICENCE_NOTE, MISUSE, feature_lines

    low, high = recipe.label_range
    name = lm if lm.startswith(EMBEDDED) or not Path(lm).exists() else Path(lm).name
    lines = [
        *("---", "library_name: transformers", "pipeline_tag: text-classification", "tags: [sentiment-analysis, mug, skesl]", "---", ""),
        *("# Sentiment of what people say: the starter model", ""),
        f"Scores the words of an utterance from {low:g} (most negative) to {high:g} (most positive). Language model `{name}`, trained on "
        f"{recipe.source}.",
        "",
        "    from finetune.prediction.sentiment_model import SentimentModel",
        '    scores = SentimentModel.from_pretrained(FOLDER_OR_NAME).score_texts(["I liked it."])',
        "",
        *(f"- {line}" for line in [*recipe.remarks, *feature_lines(recipe)]),
        *("", "## Use and misuse", "", MISUSE, "", "## Licence", "", LICENCE_NOTE, ""),
    ]
    return "\n".join(lines)


def starter_remarks(results: dict[str, Any], lm: str) -> list[str]:
    """What a reader of a starter's scores has to know."""
    rated, held = results["data"]["rated"], results["validation"]
    published = rated.get("sha256") == HUTTO_SHA256
    source = "rated reviews, tweets and editorials" if published else str(rated["source"])
    lines = [
        f"starter model: text only, trained on {source}; voice and face are not used",
        f"its error on {held['n']:,} such texts that it did not see: MAE {held['MAE']:.2f}, Corr {corr_of(held)} (scale −3 to 3)",
    ]
    measured = json.loads(MEASURED.read_text(encoding="utf-8")).get(lm) if published and MEASURED.is_file() else None
    if measured is not None:
        lines.append(
            f"its error on people speaking (CMU-MOSI, {measured['n']} utterances of `valid`, human transcripts, none trained on): "
            f"MAE {measured['MAE']:.2f}, Corr {corr_of(measured)}, Acc2 {100 * measured['Non0_acc_2']:.0f} %"
        )
    return lines


def corr_of(score: dict[str, Any]) -> str:
    """Corr with two decimals."""
    return "–" if score["Corr"] is None else f"{score['Corr']:.2f}".replace("-", "−")


if __name__ == "__main__":
    run_command(StarterOptions, main)
