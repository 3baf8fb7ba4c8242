"""The files of a finished run; all but `results.json` are optional."""

import json
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from finetune.options import MugOptions
from finetune.training.variants import model_name
from skesl_mug.errors import UserError

MODALITIES = ("text", "audio", "vision")


def read_results(folder: Path) -> dict[str, Any]:
    """`results.json` of a finished run.

    Raises:
        UserError: there is none, it is damaged, or it holds no metrics.
    """
    path = folder / "results.json"
    if not path.is_file():
        raise UserError(f"{folder}: not a finished run (no results.json); let finetune/run_mug.py finish")
    try:
        results = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path}: is damaged ({error}); run the same finetune/run_mug.py command again to rebuild it") from error
    if not isinstance(results, dict) or "metrics" not in results:
        raise UserError(f"{path}: not written by finetune/run_mug.py")
    return results


class RunResults:
    """The results and tables in a run folder.

    Raises:
        UserError: there is no `results.json`, or it is damaged.
    """

    def __init__(self, folder: Path):
        self.folder = Path(folder)
        self.results = read_results(self.folder)

    def get(self, name: str) -> dict[str, Any]:
        """A mapping in `results.json`; empty if absent or null."""
        value = self.results.get(name)
        return value if isinstance(value, dict) else {}

    def margin(self, name: str) -> float:
        """A decision margin from the run's config, or the option's default if it is not recorded."""
        return float(self.get("margins").get(name, getattr(MugOptions, name)))

    @property
    def headline(self) -> str:
        """The label generator of the main model."""
        return str(self.results.get("headline") or "none")

    @property
    def model_name(self) -> str:
        """The main model's name in tables and pictures."""
        return model_name(self.headline)

    @property
    def seeds(self) -> list[int]:
        """The seeds of the run."""
        return list(self.results.get("seeds") or [])

    @property
    def label_range(self) -> tuple[float, float]:
        """Lowest and highest label."""
        low, high = self.get("data").get("label_range") or (-3.0, 3.0)
        return float(low), float(high)

    @property
    def synthetic(self) -> bool:
        """Whether the data are synthetic."""
        data = self.get("data")
        return bool(data.get("synthetic") or data.get("made"))  # the latter is the former name

    @cached_property
    def history(self) -> pd.DataFrame | None:
        """`history.csv`: variant, seed, stage, epoch, train_loss, dev_MAE."""
        return self._table("history.csv")

    @cached_property
    def predictions(self) -> pd.DataFrame | None:
        """`predictions.csv` of the reported split."""
        return self._table("predictions.csv")

    @cached_property
    def unimodal_labels(self) -> pd.DataFrame | None:
        """`unimodal_labels.csv` of the training split: generator, seed, modality, id, y, learned, known."""
        return self._table("unimodal_labels.csv")

    @cached_property
    def clouds(self) -> dict[str, np.ndarray]:
        """`clouds.npz`: representations before and after stage 1."""
        path = self.folder / "clouds.npz"
        if not path.is_file():
            return {}
        with np.load(path, allow_pickle=False) as stored:
            return {name: stored[name] for name in stored.files}

    @cached_property
    def examples(self) -> tuple[list[dict[str, Any]], dict[str, bytes]]:
        """`examples/examples.json` and the pictures it names."""
        path = self.folder / "examples" / "examples.json"
        if not path.is_file():
            return [], {}
        entries = json.loads(path.read_text(encoding="utf-8"))
        frames = {}
        for entry in entries:
            picture = path.parent / Path(str(entry.get("frame") or "")).name
            if entry.get("frame") and picture.is_file():
                frames[entry["frame"]] = picture.read_bytes()
        return entries, frames

    def _table(self, name: str) -> pd.DataFrame | None:
        path = self.folder / name
        try:
            table = pd.read_csv(path, dtype={"id": str, "video_id": str, "text": str}, keep_default_na=False, na_values=[""])
        except (FileNotFoundError, pd.errors.EmptyDataError):
            return None
        return table if len(table) else None
