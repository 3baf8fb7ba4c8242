"""An actor for the test of the Ray engine: without models, and dying on some clips, on one of them only once."""

import os
from pathlib import Path

from preprocessing.pipeline import ClipResult, Skip


class FragileActor:
    def __init__(self, settings):
        self._folder = Path(settings.folder)

    def describe(self):
        return {"asr": None}, None

    def work(self, clips):
        outcomes = []
        for clip in clips:
            if clip.id == "kills":
                os._exit(9)
            if clip.id == "kills_once" and not (self._folder / "killed").exists():
                (self._folder / "killed").touch()
                os._exit(9)
            outcomes.append(ClipResult(clip.id, Skip("no_speech"), process=os.getpid()))
        return outcomes
