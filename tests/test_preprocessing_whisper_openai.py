"""The second engine of speech recognition: OpenAI's package, loaded from a small random checkpoint."""

import numpy as np
import pytest
from clip_factory import silence

from lexicons import UserError
from preprocessing.sound.whisper_states import attach
from preprocessing.transcription import find_model, open_transcriber
from preprocessing.transcription.transcript import Speech, Transcript, WhisperSettings

whisper = pytest.importorskip("whisper", reason="the extra `whisper` (openai-whisper) is not installed")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A multilingual Whisper of 32 states and random weights."""
    import torch

    torch.manual_seed(1)
    dims = whisper.model.ModelDimensions(80, 1500, 32, 2, 3, 51865, 448, 32, 2, 1)
    path = tmp_path_factory.mktemp("whisper") / "small.pt"
    weights = {name: 0.05 * torch.randn_like(value) for name, value in whisper.model.Whisper(dims).state_dict().items()}
    torch.save({"dims": vars(dims), "model_state_dict": weights}, path)
    return path


def settings(path, **changes) -> WhisperSettings:
    return WhisperSettings(
        **{"model": str(path), "name": "small", "engine": "openai-whisper", "beam_size": 1, "language": "auto", **changes}
    )


def test_a_checkpoint_is_loaded_described_and_used(checkpoint):
    assert find_model(str(checkpoint), "openai-whisper") == checkpoint
    engine = open_transcriber(settings(checkpoint))
    about = engine.describe()
    assert (about["engine"], about["model"], about["multilingual"]) == ("openai-whisper", "small", True)
    assert len(about["model_sha256"]) == 64
    sound = np.random.default_rng(1).standard_normal(16_000).astype(np.float32) * 0.1
    found = engine.transcribe_many([sound], [Speech(1.0, 0.0, 1.0)])[0]
    assert isinstance(found, Transcript)
    assert 0.0 < found.language_probability < 1.0
    assert found.language in whisper.tokenizer.LANGUAGES
    assert all(found.text[word.start_char : word.end_char] == word.text for word in found.words)


def test_its_words_are_converted(checkpoint, monkeypatch):
    """The result of the package, with the cut silence added back and doubts checked."""
    engine = open_transcriber(settings(checkpoint, language="en"))
    words = [{"word": word, "start": place, "end": place + 0.5, "probability": 0.9} for place, word in enumerate([" So", " good!"])]
    segment = {"words": words, "tokens": [1, 2], "avg_logprob": -0.3, "no_speech_prob": 0.1}
    monkeypatch.setattr(engine, "_language", lambda sound: ("en", 0.9))
    monkeypatch.setattr(engine._whisper, "transcribe", lambda *_, **__: {"segments": [segment], "language": "en"})
    found = engine.transcribe_many([silence(6.0)], [Speech(2.0, 2.3, 4.3)])[0]
    assert (found.text, found.language, found.doubt) == ("So good!", "en", None)
    assert [word.text for word in found.words] == ["So", "good"]
    assert [word.start for word in found.words] == pytest.approx([2.2, 3.0], abs=1e-3)
    segment["avg_logprob"] = -1.4
    assert engine.transcribe_many([silence(6.0)], [Speech(2.0, 2.3, 4.3)])[0].doubt.reason == "log_probability"
    monkeypatch.setattr(engine, "_language", lambda sound: ("ru", 0.9))
    assert engine.transcribe_many([silence(6.0)], [Speech(2.0, 2.3, 4.3)])[0].doubt.reason == "language"


def test_errors_name_the_flag(checkpoint, tmp_path):
    with pytest.raises(UserError, match=r"--asr\.model nothing: is neither a file"):
        find_model("nothing", "openai-whisper")
    (tmp_path / "bad.pt").write_bytes(b"no checkpoint")
    with pytest.raises(UserError, match=r"--asr\.model small: cannot be loaded"):
        open_transcriber(settings(tmp_path / "bad.pt"))
    with pytest.raises(UserError, match=r"--asr\.language xx"):
        open_transcriber(settings(checkpoint, language="xx"))


def test_every_layer_of_its_encoder(checkpoint):
    engine = open_transcriber(settings(checkpoint))
    sound = np.random.default_rng(1).standard_normal(40_000).astype(np.float32) * 0.1
    last, first = (engine.encoder_states(sound, layer) for layer in ("last", "1"))
    assert (last.values.shape, last.rate_hz, last.start) == ((125, 32), 50.0, 0.0)
    assert first.values.shape == last.values.shape
    assert not np.allclose(first.values, last.values, atol=1e-3)
    count = len(engine._model.encoder.blocks)
    np.testing.assert_array_equal(engine.encoder_states(sound, str(count)).values, last.values)
    assert engine.encoder_states(np.zeros(32 * 16_000, np.float32), "last").values.shape == (1600, 32)
    with pytest.raises(
        UserError, match=rf"--audio-layer 9: the encoder of --asr\.model small has {count} layers; use 1 to {count}, or last"
    ):
        engine.encoder_states(sound, "9")
    extractor = attach("1", engine)
    assert extractor.extract(sound).shape == (25, 32)
