"""Progress of a run, from its pieces; names of models and starts."""

from pathlib import Path

import pytest

from finetune.training.pace import Pace, duration
from finetune.training.variants import FULL, NO_PRETRAINING, PLAIN, Start, variant_name


def test_the_time_left_extends_what_this_session_took(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr("finetune.training.experiment.time.perf_counter", lambda: clock[0])
    pieces = tuple(tmp_path / f"{number}.json" for number in range(6))
    pieces[0].touch()  # of an earlier session: it took none of this one's time
    pace = Pace(pieces)
    assert str(pace) == "model 1 of 6"  # nothing is known of the time yet
    pieces[3].touch()
    pieces[1].touch()
    clock[0] += 240  # two minutes a model, three to go
    assert str(pace) == "model 3 of 6, about 6 min left"
    for piece in pieces:
        piece.touch()
    assert str(pace) == "model 6 of 6"


def test_durations_are_rough() -> None:
    assert [duration(seconds) for seconds in (0.2, 59, 61, 3600, 9000)] == ["1 s", "59 s", "1 min", "60 min", "2.5 h"]


def test_a_model_has_the_name_of_its_row() -> None:
    assert variant_name("mucn-crossfit", "mucn-crossfit") == "MUG (mucn-crossfit)"
    assert variant_name("mucn-meta", "mucn-crossfit") == "Labels: mucn-meta (bi-level)"
    assert variant_name("no_unimodal_tasks", "mucn-crossfit") == "Without unimodal tasks"


def test_a_start_has_the_name_of_its_files() -> None:
    assert [start.name for start in (FULL, PLAIN, NO_PRETRAINING)] == ["full", "plain", "no_pretraining"]
    assert Start(pretrained=False, unimodal_tasks=False).name == "no_pretraining_plain"
    assert [Start.only(name).name for name in ("text", "vision")] == ["text_only", "vision_only"]
    assert Start.without("audio").name == "without_audio"
    every = {Start(m, p, u).name for m in (("text",), ("text", "audio"), FULL.modalities) for p in (True, False) for u in (True, False)}
    assert len(every) == 12
