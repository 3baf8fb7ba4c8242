"""Where a fine-tuned model is: in a run, in a folder of its own, or on the hub."""

from pathlib import Path

from pretrain.starter import check_starter, starter_lm
from pretrain.text_models import run_model_folder, say_fetching
from skesl_mug.errors import UserError


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
