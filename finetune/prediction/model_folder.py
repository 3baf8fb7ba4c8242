"""Where a fine-tuned model is: in a run, in a folder of its own, or on the hub."""

import json
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pretrain.starter import check_starter, starter_lm
from pretrain.text_models import run_model_folder, say_fetching
from skesl_mug.errors import UserError
from skesl_mug.files import write_atomically, write_json

if TYPE_CHECKING:
    from finetune.prediction.recipe import Recipe


def check_model(name: str, texts: bool = False) -> None:
    """See that a local --model is there and can be asked about recordings; a hub's is left to the loading. `texts`: about texts alone.

    Raises:
        UserError: it is no fine-tuned model, or its features cannot be made from recordings.
    """
    lm = starter_lm(name)
    if lm is not None:
        check_starter(lm)
    elif Path(name).exists() or not is_hub_name(name):
        folder = model_folder(name)
        from finetune.prediction.recipe import Recipe, check_predictable

        recipe = Recipe.read(folder)
        if not texts:
            check_predictable(recipe, name)


def is_hub_name(name: str | Path) -> bool:
    """Whether a name has the form owner/name, as models on the hub have."""
    return len(Path(name).parts) == 2 and not Path(name).is_absolute() and not str(name).startswith((".", "~"))


def model_folder(name: str | Path) -> Path:
    """The folder of a model: `RUN/model`, a model folder, or the cached download of a hub name.

    Raises:
        UserError: there is none.
    """
    folder = Path(run_model_folder(name))
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise UserError(f"--model {name}: holds no fine-tuned model; give a run of finetune/run_mug.py, or its model/ folder")
        return folder
    if folder.exists() or not is_hub_name(folder):
        raise UserError(f"--model {name}: no such run; give a run of finetune/run_mug.py, a model folder or a hub name (owner/name)")
    from huggingface_hub import snapshot_download

    say_fetching(str(name))
    try:
        return Path(snapshot_download(str(name)))
    except Exception as error:  # no network, no such name, no rights: the client raises many kinds
        raise UserError(
            f"--model {name}: is no folder, and the hub gives no model of that name; check the name and the network, or give a folder"
        ) from error


CARD_FILE = "README.md"
LICENCE_NOTE = (
    "The licence of the weights is for whoever shares them to choose; it has to agree with the terms of the training corpus, of the "
    "language model and of the speech recogniser named below. The toolkit itself is Apache-2.0."
)
MISUSE = (
    "Judging what people feel from video without their consent does harm and is restricted by law in many places (in the European "
    "Union, AI Act, article 5, forbids it at work and in education). Use this on people who agreed to it. The scores are a statistical "
    "guess at how raters would label an utterance: they are no measurement of what anyone feels, and no ground for a decision about a "
    "person (hiring, credit, policing, health, insurance)."
)


def write_card(model: Path, run: Path) -> None:
    """Write the model card (`README.md`) of a run's model into its folder, from the recipe there and the run's `results.json`."""
    from finetune.prediction.recipe import Recipe

    text = card_text(Recipe.read(model), json.loads((run / "results.json").read_text(encoding="utf-8")))
    write_atomically(model / CARD_FILE, lambda path: path.write_text(text, encoding="utf-8"))


def card_text(recipe: "Recipe", results: dict[str, Any]) -> str:
    """The card in the hub's form: a YAML head, then data, numbers with their protocol, limits, intended use and misuse."""
    head = ["---", "library_name: transformers", "pipeline_tag: video-classification"]
    head += ["tags: [sentiment-analysis, multimodal, mug, skesl]", "---", "", "# Multimodal sentiment model (SKESL and MUG)", ""]
    low, high = recipe.label_range
    lines = [
        f"Scores an utterance on video from {low:g} (most negative) to {high:g} (most positive): one score from "
        f"{' and '.join(recipe.modalities)} together"
        + (f", and one each from {', '.join(recipe.unimodal_heads)}." if recipe.unimodal_heads else ".")
        + " Methods: SKESL (Qian and Han, Findings of ACL 2023) and MUG (arXiv 2408.16029).",
        "",
        "    from finetune.prediction.sentiment_model import SentimentModel",
        '    for utterance in SentimentModel.from_pretrained(FOLDER_OR_NAME).predict("video.mp4"):',
        "        print(utterance.start, utterance.score, utterance.sentiment, utterance.text)",
        "",
        *_data(recipe, results),
        *_numbers(results),
        "## Features",
        "",
        *[f"- {line}" for line in feature_lines(recipe)],
        "",
        "`recipe.json` holds every setting; the means and deviations that features are scaled by lie in the weights.",
        "",
        "## Limits",
        "",
        *[f"- {line}" for line in _limits(recipe, results)],
        "",
        "## Use and misuse",
        "",
        "Meant for research on recordings of people who agreed to it: comparing methods, describing one's own material.",
        "",
        MISUSE,
        "",
        "## Licence",
        "",
        LICENCE_NOTE,
    ]
    return "\n".join([*head, *lines, ""])


def _data(recipe: "Recipe", results: dict[str, Any]) -> list[str]:
    data = results.get("data") or {}
    counts = ", ".join(f"{name} {count}" for name, count in (data.get("counts") or {}).items())
    lines = ["## Data", "", f"{data.get('name', recipe.source)}: {counts} utterances; modalities {', '.join(recipe.modalities)}."]
    if recipe.made:
        lines += ["", "**Made data (synthetic clips): the numbers say nothing about real people.**"]
    pretraining = results.get("pretraining") or {}
    used = (pretraining.get("data") or {}).get("used")
    if used:
        lines += ["", f"The encoder was pretrained (SKESL) on {used} utterances."]
    return [*lines, ""]


def _numbers(results: dict[str, Any]) -> list[str]:
    metrics = results.get("metrics") or {}
    mean, deviation = metrics.get("mean") or {}, metrics.get("std") or {}
    seeds = results.get("seeds") or []
    rows = {f"MUG ({results.get('headline')})": (mean, deviation)}
    rows |= {
        name.replace("_", " "): (entry.get("mean") or {}, entry.get("std") or {}) for name, entry in (results.get("controls") or {}).items()
    }
    keys = [key for key, value in mean.items() if value is not None]
    lines = ["## Numbers", ""]
    lines += [
        f"On {results.get('evaluated_on')} of this corpus, with the metrics of `{results.get('dataset')}`; mean ± population standard "
        f"deviation over the seeds {', '.join(map(str, seeds))}. The weights here are those of seed {seeds[0] if seeds else '?'}, "
        "chosen by its place and not by its result. " + str(results.get("evaluated_on_note") or ""),
        "",
        "| | " + " | ".join(keys) + " |",
        "|---" * (len(keys) + 1) + "|",
    ]
    for name, (values, spread) in rows.items():
        lines.append("| " + " | ".join([name, *(_cell(values.get(key), spread.get(key)) for key in keys)]) + " |")
    return [*lines, ""]


def _cell(value: float | None, deviation: float | None) -> str:
    return "–" if value is None else f"{value:.3f}" + (f" ± {deviation:.3f}" if deviation is not None else "")


def feature_lines(recipe: "Recipe") -> list[str]:
    """A line a part: how text, audio and vision were made."""
    features = recipe.features or {}
    if recipe.features is None:
        return [f"made elsewhere ({recipe.source}): this model cannot be used on recordings"]
    asr = features.get("asr")
    lines = [
        f"text: {asr['engine']}, {Path(str(asr['model'])).name}, language {asr.get('language')}" if asr else "text: as the corpus gives it"
    ]
    for name in ("audio", "vision"):
        entry = features.get(name)
        if entry is not None:
            versions = ", ".join(f"{library} {version}" for library, version in entry.get("versions", {}).items())
            lines.append(f"{name}: {entry['extractor']}, {len(entry['columns'])} columns" + (f" ({versions})" if versions else ""))
    lexicon = features.get("lexicon")
    if lexicon:
        lines.append(f"lexicon of the masks: {lexicon['name']} ({lexicon.get('licence', 'licence unknown')})")
    return lines


def _limits(recipe: "Recipe", results: dict[str, Any]) -> list[str]:
    asr = (recipe.features or {}).get("asr") or {}
    lines = [
        "Labels are raters' impressions of acted or public speech; other people, languages, microphones and cameras will score worse.",
        f"Language: {asr['language']}." if asr.get("language") else "Language: that of the corpus.",
        "Recognition errors pass into the text, most of all for accents and voices that the recogniser knows little of.",
    ]
    sentence = (results.get("audio_vision_use") or {}).get("sentence")
    if sentence:
        lines.append(str(sentence))
    return lines


def save_model(source: Path, target: Path) -> Path:
    """Copy a model folder to another place, its recipe without paths of this machine.

    Raises:
        UserError: the target is not empty, or is a file.
    """
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UserError(f"{target}: is not an empty folder; name another to save the model in")
    target.mkdir(parents=True, exist_ok=True)
    for path in sorted(source.iterdir()):
        if path.is_file() and not path.name.startswith("."):
            shutil.copyfile(path, target / path.name)
    from finetune.prediction.recipe import Recipe

    recipe = Recipe.read(source)
    recipe.features = portable(recipe.features)
    recipe.write(target)
    config = target / "config.json"
    write_json(config, _without_paths(json.loads(config.read_text(encoding="utf-8"))))
    return target


def push_model(folder: Path, name: str, *, private: bool = True) -> str:
    """Upload a saved model folder to the hub; gives its address.

    Raises:
        UserError: no rights, no network, or no such owner.
    """
    from huggingface_hub import HfApi

    if not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        raise UserError(f"{name}: is no hub name; write owner/name")
    try:
        api = HfApi()
        address = api.create_repo(name, private=private, exist_ok=True)
        api.upload_folder(repo_id=name, folder_path=folder)
    except Exception as error:  # the client raises many kinds: no network, no token, no rights
        raise UserError(f"{name}: cannot be pushed ({type(error).__name__}); log in with `hf auth login` and check the name") from error
    return str(address)


def portable(features: dict[str, Any] | None) -> dict[str, Any] | None:
    """The features' description without paths of this machine: a recogniser's folder is named by its last part alone."""
    asr = (features or {}).get("asr")
    if features is not None and asr is not None and Path(str(asr.get("model"))).is_absolute():
        return {**features, "asr": {**asr, "model": Path(str(asr["model"])).name}}
    return features


def _without_paths(value: Any) -> Any:
    """A config with `_name_or_path` entries that name folders emptied."""
    if isinstance(value, dict):
        return {
            key: "" if key == "_name_or_path" and isinstance(item, str) and Path(item).is_absolute() else _without_paths(item)
            for key, item in value.items()
        }
    return [_without_paths(item) for item in value] if isinstance(value, list) else value
