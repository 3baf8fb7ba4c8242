"""Model folders: finding one by name, writing its card, saving it elsewhere, and pushing it to the hub."""

import json
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pretrain.starter import check_starter, starter_lm
from pretrain.text_models import run_model_folder, say_fetching
from skesl_mug.errors import UserError
from skesl_mug.files import write_atomically, write_json
from skesl_mug.wording import counted

if TYPE_CHECKING:
    from finetune.prediction.recipe import Recipe

CARD_FILE = "README.md"
MEMBERS = "members"
"""Folder of the models that an averaged one consists of, below its own; each is a complete model folder."""
LICENCE_NOTE = (
    "Whoever shares these weights chooses their licence; it has to agree with the terms of the training corpus, the language model and "
    "the speech recognition model named above. The toolkit itself is Apache-2.0."
)
MISUSE = (
    "Judging people's feelings from video without their consent is harmful and restricted by law in many places (in the European Union, "
    "article 5 of the AI Act prohibits it at work and in education). Use this model on people who agreed to it. The scores are a "
    "statistical guess at how raters would label an utterance. They do not measure what anyone feels, and are not a basis for decisions "
    "about a person (hiring, credit, policing, health, insurance)."
)


def check_model(name: str, texts: bool = False) -> None:
    """Check that a local --model exists and can be used on recordings (`texts`: on texts); a hub name is checked when it is loaded.

    Raises:
        UserError: it is not a fine-tuned model, or its features cannot be extracted from recordings.
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
    """Whether a name has the form owner/name of models on the hub."""
    return len(Path(name).parts) == 2 and not Path(name).is_absolute() and not str(name).startswith((".", "~"))


def model_folder(name: str | Path) -> Path:
    """The folder of a model: `RUN/model`, a model folder, or the cached download of a hub name.

    Raises:
        UserError: there is none.
    """
    folder = Path(run_model_folder(name))
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise UserError(f"--model {name}: not a fine-tuned model; choose a fine-tuning run or its model/ folder")
        return folder
    if folder.exists() or not is_hub_name(folder):
        raise UserError(f"--model {name}: no such run; choose a fine-tuning run, a model folder or a hub name (owner/name)")
    from huggingface_hub import snapshot_download

    say_fetching(str(name))
    try:
        return Path(snapshot_download(str(name)))
    except Exception as error:  # no network, no such name, no permission: the client raises many kinds
        raise UserError(
            f"--model {name}: neither a folder nor a model on the hub; check the name and the network, or choose a folder"
        ) from error


def write_card(model: Path, run: Path) -> None:
    """Write the card (`README.md`) into the model folder of a run, from its recipe and the run's `results.json`."""
    from finetune.prediction.recipe import Recipe

    text = card_text(Recipe.read(model), json.loads((run / "results.json").read_text(encoding="utf-8")))
    write_atomically(model / CARD_FILE, lambda path: path.write_text(text, encoding="utf-8"))


def card_text(recipe: "Recipe", results: dict[str, Any]) -> str:
    """The model card as the hub expects it: YAML metadata, then data, results and their protocol, limits, use and misuse."""
    metrics = results.get("metrics") or {}
    keys = [key for key, value in (metrics.get("mean") or {}).items() if value is not None]
    entries = {f"MUG ({results.get('headline')})": metrics}
    averaged = results.get("seeds_averaged") or {}
    entries |= {averaged["name"]: averaged} if averaged else {}
    entries |= {name.replace("_", " "): entry for name, entry in (results.get("controls") or {}).items()}
    asr = (recipe.features or {}).get("asr") or {}
    return render_card(
        "model_card.md.jinja",
        recipe,
        results={"evaluated_on_note": None, "evaluated_on": None, "dataset": None} | results,
        data={"name": None, "counts": None} | (results.get("data") or {}),
        seeds=results.get("seeds") or [],
        keys=keys,
        rows=[(name, [_cell(entry, key) for key in keys]) for name, entry in entries.items()],
        pretrained_on=((results.get("pretraining") or {}).get("data") or {}).get("used"),
        language=asr.get("language"),
        use_sentence=(results.get("audio_vision_use") or {}).get("sentence"),
    )


def render_card(template: str, recipe: "Recipe", **values: Any) -> str:
    """A card from a template in this folder."""
    from skesl_mug.templates import templates

    card = templates(Path(__file__).parent).get_template(template)
    text = card.render(recipe=recipe, features=feature_lines(recipe), misuse=MISUSE, licence=LICENCE_NOTE, **values)
    return re.sub(r"\n{3,}", "\n\n", text).rstrip() + "\n"


def _cell(entry: dict[str, Any], key: str) -> str:
    value, deviation = (entry.get("mean") or {}).get(key), (entry.get("std") or {}).get(key)
    return "–" if value is None else f"{value:.3f}" + (f" ± {deviation:.3f}" if deviation is not None else "")


def feature_lines(recipe: "Recipe") -> list[str]:
    """How text, audio and vision were extracted, one line each."""
    features = recipe.features
    if features is None:
        return [f"of unknown origin ({recipe.source}): this model cannot be used on recordings"]
    asr = features.get("asr")
    text = f"{asr['engine']}, {Path(str(asr['model'])).name}, language {asr.get('language')}" if asr else "transcripts of the corpus"
    lines = [f"text: {text}" + (f", after up to {counted(recipe.context, 'earlier utterance')}" if recipe.context else "")]
    for name in ("audio", "vision"):
        entry = features.get(name)
        if entry is not None:
            versions = ", ".join(f"{library} {version}" for library, version in entry.get("versions", {}).items())
            lines.append(f"{name}: {entry['extractor']}, {len(entry['columns'])} columns" + (f" ({versions})" if versions else ""))
    lexicon = features.get("lexicon")
    if lexicon:
        lines.append(f"lexicon of the masks: {lexicon['name']} ({lexicon.get('licence', 'licence unknown')})")
    return lines


def save_model(source: Path, target: Path) -> Path:
    """Copy a model folder, without local paths in its recipe and config.

    Raises:
        UserError: the target is a file or not empty.
    """
    from finetune.prediction.recipe import Recipe

    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UserError(f"{target}: not an empty folder; choose another")
    target.mkdir(parents=True, exist_ok=True)
    for path in sorted(source.iterdir()):
        if path.is_file() and not path.name.startswith("."):
            shutil.copyfile(path, target / path.name)
    recipe = Recipe.read(source)
    for member in recipe.members:
        save_model(source / MEMBERS / member, target / MEMBERS / member)
    asr = (recipe.features or {}).get("asr")
    if asr is not None and Path(str(asr.get("model"))).is_absolute():
        asr["model"] = Path(str(asr["model"])).name
    recipe.write(target)
    config = target / "config.json"
    write_json(config, _without_paths(json.loads(config.read_text(encoding="utf-8"))))
    return target


def push_model(folder: Path, name: str, *, private: bool = True) -> str:
    """Upload a saved model folder to the hub; returns its URL.

    Raises:
        UserError: no permission, no network, or no such owner.
    """
    from huggingface_hub import HfApi

    if not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        raise UserError(f"{name}: not a hub name; write owner/name")
    try:
        api = HfApi()
        address = api.create_repo(name, private=private, exist_ok=True)
        api.upload_folder(repo_id=name, folder_path=folder)
    except Exception as error:  # the client raises many kinds: no network, no token, no permission
        raise UserError(f"{name}: cannot be pushed ({type(error).__name__}); log in with `hf auth login` and check the name") from error
    return str(address)


def _without_paths(value: Any) -> Any:
    """A config with empty `_name_or_path` entries where they are local paths."""
    if isinstance(value, dict):
        return {
            key: "" if key == "_name_or_path" and isinstance(item, str) and Path(item).is_absolute() else _without_paths(item)
            for key, item in value.items()
        }
    return [_without_paths(item) for item in value] if isinstance(value, list) else value
