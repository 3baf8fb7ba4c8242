"""`recipe.json` in a model folder: how to extract the features that a model was trained on, and how to interpret its scores."""

import json
import re
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune.corpora.loading import FOLDED
from finetune.corpora.splits import LabelScale
from finetune.modalities import MODALITIES
from finetune.prediction.intervals import ScoreInterval
from lexicons.sources import PACKAGED
from preprocessing.blocks import BLOCKS, blocks_of
from preprocessing.extensions import AUDIO_FEATURES, LAST_LAYER, VISION_FEATURES
from preprocessing.features import SOURCE, plugin_module
from preprocessing.pipeline import ClipProcessor, PipelineSettings
from preprocessing.schema import FeatureInfo
from preprocessing.transcription import find_model
from preprocessing.transcription.transcript import DoubtLimits, WhisperSettings
from preprocessing.vision.faces import FACES
from pretrain.text_models import read_model_type
from skesl_mug.errors import UserError
from skesl_mug.files import write_json
from skesl_mug.wording import printable

if TYPE_CHECKING:
    from finetune.corpora import LabelledCorpus
    from finetune.options import MugOptions
import hashlib
from collections.abc import Iterable, Mapping

RECIPE_FILE = "recipe.json"
FORMAT_VERSION = 2
"""2 has members."""
FEATURES = ("audio", "vision", "asr", "lexicon")
LONGEST_CLIP = 600.0  # seconds, of a file that is taken as one utterance


@dataclass
class Recipe:
    """What prediction needs to know about a model's training data.

    `features` holds the entries `audio`, `vision`, `asr`, `lexicon` of the utterance dataset's `dataset.json`; None if the corpus
    was a pickle, which does not record how its features were extracted. `unimodal_heads` are the modalities with trained heads.
    `context` is the number of earlier utterances whose transcripts are read before an utterance's own. `remarks` are shown wherever the
    model is used. `frozen_lm`: the language model's states were rounded to float16 in training and have to be in prediction.
    `interval`: the one around its scores; None in models of earlier versions. `members`: the models below the folder whose predictions are
    averaged; empty for a single model.
    """

    dataset: str
    label_range: tuple[float, float]
    modalities: list[str]
    unimodal_heads: list[str]
    source: str
    synthetic: bool = False
    lower_case: bool = False
    max_text_tokens: int = 64
    context: int = 0
    frozen_lm: bool = False
    features: dict[str, Any] | None = None
    versions: dict[str, str] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)
    members: list[str] = field(default_factory=list)
    interval: ScoreInterval | None = None
    format_version: int = FORMAT_VERSION

    @property
    def scale(self) -> LabelScale:
        """Between label units and the network's outputs."""
        return LabelScale(*self.label_range)

    def feature(self, modality: str) -> FeatureInfo | None:
        """How the features of `audio` or `vision` are extracted."""
        entry = (self.features or {}).get(modality)
        return None if entry is None else FeatureInfo(**entry)

    def write(self, folder: Path) -> None:
        """Write `recipe.json`."""
        entries = asdict(self)
        entries["made"] = entries.pop("synthetic")  # the name in the file format
        if not self.members:  # older versions read it too
            entries.pop("members")
            entries["format_version"] = 1
        write_json(folder / RECIPE_FILE, entries)

    def averaging(self, members: list[str], interval: ScoreInterval | None = None) -> "Recipe":
        """The recipe of the mean of several models that have this recipe, with the interval around that mean."""
        count = len(members)
        remark = f"scores are the mean of {count} models ({', '.join(members)}); the networks take {count} times as long as one"
        return replace(self, members=members, interval=interval, remarks=[*self.remarks, remark])

    @classmethod
    def read(cls, folder: Path) -> "Recipe":
        """Read `recipe.json`.

        Raises:
            UserError: there is none, it is damaged, or a newer version wrote it.
        """
        path = folder / RECIPE_FILE
        try:
            entries = json.loads(path.read_text(encoding="utf-8"))
            if int(entries["format_version"]) > FORMAT_VERSION:
                raise UserError(f"{path}: was written by a newer version of the toolkit; update yours")
            low, high = entries.pop("label_range")
            entries["synthetic"] = entries.pop("made", False)
            entries = {known.name: entries[known.name] for known in fields(cls) if known.name in entries}
            if interval := entries.pop("interval", None):
                entries["interval"] = ScoreInterval(**interval)
            return cls(label_range=(float(low), float(high)), **entries)
        except FileNotFoundError as error:
            if read_model_type(folder) == "skesl":
                raise UserError(
                    f"--model {folder}: is a pretrained encoder, not a fine-tuned model; first use it with `skesl-mug finetune`"
                ) from error
            raise UserError(
                f"--model {folder}: has no {RECIPE_FILE}, so its features cannot be extracted; fine-tune again with this version"
            ) from error
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path}: is damaged ({error}); copy the model again") from error


def check_predictable(recipe: Recipe, name: str) -> None:
    """Check that a model's features can be extracted from recordings.

    Raises:
        UserError: the model was trained on features of unknown origin, or on those of a plugin that is not loaded.
    """
    blocks = [("audio", AUDIO_FEATURES, block) for block in blocks_of(recipe.feature("audio"))]
    blocks += [("vision", VISION_FEATURES, block) for block in blocks_of(recipe.feature("vision"))]
    for modality, registry, info in blocks:
        module = plugin_module(info.settings)
        if module is not None and info.extractor not in registry:
            how = f"add --plugin {module}, or `import {module}` in Python"
            if module == "__main__":
                how = "it was a script; move the registration into a module, and add --plugin MODULE, or `import MODULE` in Python"
            raise UserError(
                f"--model {name}: needs the plugin that registers the {modality} features {info.extractor} "
                f"({info.settings['plugin']} when they were extracted); {how}"
            )
    if recipe.features is None:
        raise UserError(
            f"--model {name}: was trained on {recipe.source}, which does not record how its features were extracted, so it cannot "
            "be used on recordings; fine-tune on an utterance dataset (`skesl-mug preprocess`) instead"
        )


def pipeline_settings(recipe: Recipe, asr_model: str | None, openface: str | None, quiet: bool) -> PipelineSettings:
    """The preprocessing settings that extract the features of a recipe; `asr_model` replaces the recipe's.

    Raises:
        UserError: the speech recognition model or OpenFace is missing.
    """
    features = recipe.features or {}
    audio, vision, lexicon = recipe.feature("audio"), recipe.feature("vision"), features.get("lexicon") or {}
    aligned = any(info is not None and "aligned" in info.settings for info in (audio, vision))
    kinds = [block.extractor for block in blocks_of(vision)]
    if openface is not None and "openface" not in kinds:
        raise UserError(f"--openface {openface}: this model does not use OpenFace features; leave the option out")
    faces = {words: name for name, words in FACES.items()}
    settings = PipelineSettings(
        whisper=_whisper(features.get("asr"), asr_model),
        audio=[block.extractor for block in blocks_of(audio)],
        audio_layer=next((str(block.settings["layer"]) for block in blocks_of(audio) if "layer" in block.settings), LAST_LAYER),
        vision=kinds,
        faces=next((faces[words] for block in blocks_of(vision) if (words := block.settings.get("faces")) in faces), "first"),
        openface=openface,
        align_features=aligned,
        lexicon=name if (name := str(lexicon.get("name", "vader"))) in PACKAGED else "vader",  # it only colours words; files stay behind
        min_seconds=0.1,
        max_seconds=LONGEST_CLIP,
        quiet=quiet,
    )
    if vision is not None:
        settings.vision_fps = float(vision.settings["frame_rate"] if "aligned" in vision.settings else vision.rate_hz)
    if lexicon.get("range"):
        settings.lexicon_scale = float(lexicon["range"][1])
    return settings


def _whisper(asr: dict[str, Any] | None, asr_model: str | None) -> WhisperSettings | None:
    name = asr_model or (asr or {}).get("model")
    if name is None:
        return None
    asr = asr or {}
    engine = asr.get("engine", "faster-whisper")
    try:
        folder = find_model(str(name), engine)
    except UserError as error:
        raise UserError(f"--asr-model: the training data were transcribed by {name}, which is not available ({error})") from error
    return WhisperSettings(
        model=str(folder),
        name=str(name),
        engine=engine,
        language=asr.get("language", "en"),
        beam_size=int(asr.get("beam_size", 5)),
        chinese=asr.get("chinese", "simplified"),
        limits=DoubtLimits(**asr.get("limits", {})),
    )


def check_features(recipe: Recipe, processor: ClipProcessor) -> list[str]:
    """Compare the features of a processor with those that a model was trained on.

    Returns:
        Notes on harmless differences: library versions, another speech recognition model.

    Raises:
        UserError: columns, rate or settings differ.
    """
    notes = []
    for modality, made in (("audio", processor.audio_info()), ("vision", processor.vision_info())):
        wanted = recipe.feature(modality)
        if wanted is None or made is None:
            continue
        differing = first_difference(wanted, made)
        if differing is not None and "plugin" in {**wanted.settings, **made.settings}:
            raise UserError(
                f"--model: the plugin of the {modality} features {made.extractor} is not the one it was trained with ({differing}); use "
                "the plugin as it was then, or preprocess and fine-tune again"
            )
        if differing is not None and "model_sha256" in differing and "whisper" in (block.extractor for block in blocks_of(wanted)):
            raise UserError(
                "--model: its audio features are states of the speech recogniser that transcribed its training data "
                f"({((recipe.features or {}).get('asr') or {}).get('model')}); use that one as --asr-model, or leave the option out"
            )
        if differing is not None:
            raise UserError(
                f"--model: this version of the toolkit extracts other {modality} features than it was trained on ({differing}); "
                "use the version it was trained with, or fine-tune again"
            )
        for library, version in wanted.versions.items():
            if made.versions.get(library) not in (None, version):
                notes.append(f"{modality}: extracted with {library} {made.versions[library]}, in training with {version}")
    trained, here = (recipe.features or {}).get("asr"), processor.describe()["asr"]
    if here is not None:
        if trained is None:
            notes.append(f"text: transcribed by {Path(here['model']).name}; the training corpus had its own transcripts")
        elif "model_sha256" in trained and trained["model_sha256"] != here.get("model_sha256"):
            notes.append(f"text: transcribed by {Path(here['model']).name}, in training by {trained.get('model')}")
    return notes


def first_difference(trained: FeatureInfo, here: FeatureInfo) -> str | None:
    """The first difference between two descriptions of features in words, apart from library versions; None if there is none."""
    if trained.extractor != here.extractor:
        return f"extractor {trained.extractor}, here {here.extractor}"
    for ours, theirs in zip(blocks_of(trained), blocks_of(here), strict=True) if BLOCKS in trained.settings else ():
        if differing := first_difference(ours, theirs):
            return f"{ours.extractor}: {differing}"
    if trained.columns != here.columns:
        names = [[column["name"] for column in info.columns] for info in (trained, here)]
        return "their columns" if names[0] == names[1] else f"{len(names[0])} columns, here {len(names[1])} or with other names"
    if trained.rate_hz != here.rate_hz:
        return f"{trained.rate_hz:g} frames per second, here {here.rate_hz:g}"
    sources = (trained.settings.get(SOURCE), here.settings.get(SOURCE))
    if None not in sources and sources[0] != sources[1]:
        return "its code has changed"
    same = None not in sources or _plugin_name(trained) == _plugin_name(here)
    for key in sorted({*trained.settings, *here.settings} - {SOURCE, BLOCKS, *(["plugin"] if same else [])}):
        if trained.settings.get(key) != here.settings.get(key):
            return f"{key}: {trained.settings.get(key)}, here {here.settings.get(key)}"
    return None


def _plugin_name(info: FeatureInfo) -> str:
    """The plugin's name; older versions called the module of a script `__mp_main__` in worker processes."""
    return str(info.settings.get("plugin")).replace("__mp_main__", "__main__")


def recipe_of(options: "MugOptions", corpus: "LabelledCorpus", results: dict[str, Any]) -> Recipe:
    """The recipe of a run's model, from its options, its corpus, and the contents of its `results.json`."""
    from finetune.training.calibration import interval_from

    info = corpus.info.to_dict() if corpus.info is not None else None
    trained = results.get("unimodal_head_metrics") or {}
    return Recipe(
        dataset=options.dataset,
        label_range=corpus.label_range,
        modalities=list(corpus.modalities),
        unimodal_heads=[name for name in MODALITIES if name in trained],
        source=str(corpus.describe()["name"]),
        synthetic=corpus.synthetic,
        lower_case=any(finding.what == FOLDED for finding in corpus.findings),
        max_text_tokens=options.max_text_tokens,
        context=corpus.context,
        frozen_lm=options.freeze_lm,
        features={name: info[name] for name in FEATURES} if info is not None else None,
        versions=dict(results.get("versions") or {}),
        interval=interval_from(results["score_interval"], options.seeds[0]),
    )


CLIPS_FILE = "corpus_clips.json"
DIGITS = 16  # of the hash: a shared model does not reveal the names of recordings


def write_clips(model: Path, splits: Mapping[str, Iterable[str]]) -> None:
    """Write the clip ids of each split (paths relative to the corpus, without suffix) into a model folder, as hashes.

    Prediction recognises clips of the model's own corpus by them: an utterance of one channel (`CLIP#left`) also by its file.
    """
    marks = {name: {_mark(part) for clip in ids for part in (clip, re.sub(r"#[a-z0-9]+$", "", clip))} for name, ids in splits.items()}
    write_json(model / CLIPS_FILE, {name: sorted(found) for name, found in marks.items()})


def read_clips(model: Path) -> dict[str, str]:
    """The split of each clip by its hash; empty if the model has no such file."""
    try:
        entries = json.loads((model / CLIPS_FILE).read_text(encoding="utf-8"))
        return {mark: name for name, marks in entries.items() for mark in marks}
    except (OSError, ValueError, AttributeError, TypeError):
        return {}


def split_with(clips: Mapping[str, str], path: Path) -> str | None:
    """The split with a clip of this name: its id is the end of the path (`speaker/video/clip`, or the file name)."""
    parts = [printable(part) for part in path.absolute().with_suffix("").parts[1:]]
    names = ("/".join(parts[-count:]) for count in range(len(parts), 0, -1))
    return next((clips[mark] for mark in map(_mark, names) if mark in clips), None)


def _mark(clip_id: str) -> str:
    return hashlib.sha256(clip_id.encode()).hexdigest()[:DIGITS]
