"""The exported network gives the same scores as the original, for all sizes and missing modalities."""

from pathlib import Path

import pytest
from synthetic_model import make_model

from finetune.export import INPUTS, Options, main, open_session, random_inputs, run
from finetune.model.networks import MugModel
from finetune.prediction.intervals import ScoreInterval
from finetune.prediction.recipe import Recipe
from finetune.prediction.seed_average import write_members
from finetune.prediction.sentiment_model import SentimentModel
from skesl_mug.errors import UserError

onnx = pytest.importorskip("onnx", reason="the extra `onnx` is not installed")
pytest.importorskip("onnxruntime", reason="the extra `onnx` is not installed")


def test_the_exported_network_is_the_network(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    folder = make_model(tmp_path)
    recipe = Recipe.read(folder / "model")
    recipe.interval = ScoreInterval(0.8, 1.25, 100)
    recipe.write(folder / "model")
    main(Options(model=str(folder), output=tmp_path / "model.onnx"))
    shown = capsys.readouterr().out
    assert "maximum difference from the network" in shown
    stored = onnx.load(str(tmp_path / "model.onnx"))
    assert [entry.name for entry in stored.graph.input] == list(INPUTS)
    tasks = next(entry.value for entry in stored.metadata_props if entry.key == "tasks").split()
    assert tasks == ["fused", "text", "audio", "vision"]
    assert {entry.value for entry in stored.metadata_props if entry.key.startswith("interval")} == {"0.8", "1.250000"}
    model = SentimentModel.from_pretrained(folder, device="cpu")
    session = open_session(tmp_path / "model.onnx")
    for batch, lengths in ((1, (4, 7, 3)), (5, (12, 31, 17))):
        inputs = random_inputs(model, batch, lengths, seed=batch)
        assert run(session, inputs).shape == (batch, 4)
        changed = [*inputs[:5], inputs[5] * 0, inputs[6]]  # without vision the multimodal score moves, the text's does not
        moved = abs(run(session, changed) - run(session, inputs))[0]
        assert moved[0] > 1e-4
        assert moved[1] < 1e-6


def test_a_wrong_export_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_model(tmp_path)
    monkeypatch.setattr("finetune.export.compare", lambda model, path: (0.01, 1.0, 1.0))
    with pytest.raises(UserError, match="differs from the network by"):
        main(Options(model=str(folder), output=tmp_path / "model.onnx"))
    assert not (tmp_path / "model.onnx").exists()


def test_an_average_of_models_is_exported_as_one_network(tmp_path: Path) -> None:
    folder = make_model(tmp_path)
    network = MugModel.from_pretrained(folder / "model")
    for name, parameter in network.named_parameters():
        parameter.data *= 1.0 if "text_model" in name else 1.1  # it was frozen: the same in all members
    network.save_pretrained(tmp_path / "other")
    recipe = Recipe.read(folder / "model")
    members = {"seed-1": (folder / "model", recipe), "seed-2": (tmp_path / "other", recipe)}
    write_members(folder / "model", recipe.averaging(list(members)), members)
    main(Options(model=str(folder), output=tmp_path / "model.onnx"))
    inputs = random_inputs(SentimentModel.from_pretrained(folder), 2, (9, 20, 11))
    scores = []
    for member in ("seed-1", "seed-2"):
        main(Options(model=str(folder / "model" / "members" / member), output=tmp_path / "one.onnx"))
        scores.append(run(open_session(tmp_path / "one.onnx"), inputs))
    assert abs(scores[0] - scores[1]).max() > 1e-3
    assert abs(run(open_session(tmp_path / "model.onnx"), inputs) - sum(scores) / 2).max() < 1e-5
