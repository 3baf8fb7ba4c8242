"""Fine-tuning from an encoder that rates, and on few labelled utterances."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from rated_texts import use_rated, write_rated
from synthetic_corpus import write_pickle
from synthetic_pretraining import write_text_model
from test_finetune_run import run

from finetune.corpora import load_corpus
from finetune.model.networks import MugConfig, MugInputs, MugModel
from finetune.options import MugOptions, TrainingOptions
from finetune.prediction.sentiment_model import SentimentModel
from finetune.studies.missing_data import DataSizeOptions, arms_of
from finetune.training.defaults import training_line
from finetune.training.experiment import draw_few, open_corpus
from pretrain.encoder import SkeslForMaskedIntensity, SkeslModel, load_encoder
from pretrain.objective import RatingHead
from skesl_mug.console import given_flags, make_options, parse_options, run_command, to_plain
from skesl_mug.errors import UserError

QUICK = ["--training.align-epochs", 2, "--bootstrap", 50, "--seeds", 1, 2]


@pytest.fixture(scope="module")
def text_model(tmp_path_factory: pytest.TempPathFactory):
    """A tiny language model in a folder whose starter is trained from synthetic sentences."""
    base = tmp_path_factory.mktemp("few")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SKESL_MUG_CACHE", str(base / "cache"))
        use_rated(patch, write_rated(base / "rated.csv", 60))
        yield write_text_model(base / "lm")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pickle(tmp_path_factory.mktemp("data") / "sims.pkl", {"train": 48, "valid": 16, "test": 24})


def rater(text_model: Path, folder: Path) -> SkeslForMaskedIntensity:
    """A model of texts that rates, its head's weights at random."""
    torch.manual_seed(5)
    model = SkeslForMaskedIntensity.from_text_model(text_model, 0, 0, attention_dim=8, num_blocks=2, rating_dim=6)
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    model.save_pretrained(folder)
    return model.eval()


def inputs(seed: int, audio: bool = True, vision: bool = True) -> MugInputs:
    """A batch of two texts, the second padded, with sounds and faces that depend on a seed."""
    generator = torch.Generator().manual_seed(seed)
    ids, mask = torch.tensor([[2, 9, 12, 19, 3], [2, 20, 3, 0, 0]]), torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
    here = torch.tensor([True, True])
    return MugInputs(
        ids,
        mask,
        None,
        torch.randn(2, 6, 5, generator=generator) if audio else None,
        torch.ones(2, 6) if audio else None,
        torch.randn(2, 4, 3, generator=generator) * 50 if vision else None,
        torch.ones(2, 4) if vision else None,
        {"text": here, "audio": here & audio, "vision": here & vision},
    )


@pytest.mark.parametrize("fusion", ["joint", "encoder"])
def test_a_model_starts_as_the_head_that_rated(text_model: Path, tmp_path: Path, fusion: str) -> None:
    trained = rater(text_model, tmp_path / "rater")
    encoder, _ = load_encoder(tmp_path / "rater", 5, 3)
    model = MugModel.around(encoder, MugConfig(audio_dim=5, vision_dim=3, dim=6, fusion=fusion)).eval()
    assert model.start_from(trained.rating_head)
    batches = [inputs(0), inputs(1), inputs(2, audio=False), inputs(3, audio=False, vision=False)]
    with torch.no_grad():
        expected = trained.rate(input_ids=batches[0].input_ids, attention_mask=batches[0].attention_mask) / 3
        for batch in batches:
            torch.testing.assert_close(model(batch).predictions["fused"], expected, atol=1e-6, rtol=0)
    assert abs(expected[0] - expected[1]) > 1e-3
    assert model.start_from(trained.rating_head, 0.2, 1.0)  # labels of 1 to 5: a rating of 0 is a 3, one of 3 a 5
    with torch.no_grad():
        stars = model(batches[0]).predictions["fused"] * 5
    torch.testing.assert_close(stars, 3 + 2 * expected, atol=1e-5, rtol=0)
    model.train()
    model(inputs(0)).predictions["fused"].sum().backward()
    reached = [name for name, value in model.named_parameters() if value.grad is not None and value.grad.abs().sum() > 0]
    assert any("audio" in name and name.startswith("encoder.crossmodal") for name in reached)
    assert ("gather.audio.weight" in reached) == (fusion == "joint")


def test_a_head_that_does_not_fit_changes_nothing(text_model: Path) -> None:
    torch.manual_seed(0)
    head = RatingHead(16, 6, 0.0)
    for changes in (
        {"dim": 5},
        {"fusion": "unimodal"},
        {"mechanisms": ["common-space"]},
        {"mechanisms": ["alternate"]},
        {"mechanisms": ["residual"]},
    ):
        encoder = SkeslModel.from_text_model(text_model, 5, 3, attention_dim=8, num_blocks=1)
        model = MugModel.around(encoder, MugConfig(**{"audio_dim": 5, "vision_dim": 3, "dim": 6, **changes}))
        before = {name: value.clone() for name, value in model.state_dict().items()}
        assert model.start_from(head) is False, changes
        assert all(torch.equal(before[name], value) for name, value in model.state_dict().items()), changes


def test_few_utterances_from_the_starter_end_to_end(
    text_model: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    start, started = MugModel.start_from, []
    monkeypatch.setattr(MugModel, "start_from", lambda model, head, *ends: started.append(start(model, head, *ends)))
    same = ["--dataset", "sims", "--data", data, "--encoder", f"starter:{text_model}", "--few", 16, "--output", tmp_path / "run", *QUICK]
    results = run(*same)
    assert started
    assert all(started)
    assert results["data"]["counts"]["train"] == 16
    assert results["headline"] == "none"
    assert results["unimodal_labels"] == {}
    assert "no_pretraining" not in results["controls"]  # it would need other rates
    stored = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert stored["few"] == 16
    assert stored["training"]["lr"] == 1e-4
    assert stored["training"]["align_epochs"] == 2
    assert (tmp_path / "run" / "report.html").is_file()
    capsys.readouterr()
    assert run(*same)["metrics"] == results["metrics"]
    assert "all models of this run are already trained" in capsys.readouterr().out
    stored_again = ["--config", tmp_path / "run" / "config.yaml"]
    assert run(*stored_again)["metrics"] == results["metrics"]
    assert "all models of this run are already trained" in capsys.readouterr().out
    with pytest.raises(UserError, match="--few was 16, now 24"):
        run(*[24 if part == 16 else part for part in same])
    with pytest.raises(UserError, match="--seeds 2: the first seed draws --few's utterances, and this run started with 1"):
        run(*same[:-2], 2, 1)
    network = MugModel.from_pretrained(tmp_path / "run" / "model")
    assert network.modalities == ["text", "audio", "vision"]
    with pytest.raises(UserError, match="does not record how its features were extracted"):
        SentimentModel.from_pretrained(tmp_path / "run").processor  # noqa: B018


def test_the_draw_depends_on_the_first_seed_alone(text_model: Path, data: Path, tmp_path: Path) -> None:
    def drawn(*seeds: int, few: int = 16) -> list[str]:
        options = MugOptions(dataset="sims", data=str(data), output=tmp_path, lm=str(text_model), few=few, seeds=list(seeds))
        corpus = open_corpus(options)
        assert [len(corpus.splits[name]) for name in ("dev", "test")] == [16, 24]
        return list(corpus.splits["train"].ids)

    first = drawn(1, 2)
    assert len(set(first)) == 16
    assert first == drawn(1) == drawn(1, 7, 9)
    assert first != drawn(2, 1)
    whole = load_corpus("sims", data).splits["train"]
    assert drawn(1, few=48) == list(whole.ids)
    rows = {name: place for place, name in enumerate(whole.ids)}
    corpus = load_corpus("sims", data)
    draw_few(corpus, 16, 1)
    np.testing.assert_array_equal(corpus.splits["train"].label, whole.label[[rows[name] for name in first]])


def parse(*arguments: object) -> MugOptions:
    return parse_options(MugOptions, ["--dataset", "sims", "--data", "x.pkl", "--output", "run", *map(str, arguments)])


def test_options_for_few_and_what_is_kept(tmp_path: Path) -> None:
    warm, cold = parse("--few", 64), parse("--few", 64, "--lm", "some/lm")
    assert warm.encoder == "starter"
    assert cold.encoder is None
    assert (warm.training.lr, warm.training.lm_lr, warm.training.encoder_lr) == (1e-4, 1e-5, 1e-5)
    assert (cold.training.lr, cold.training.lm_lr, cold.training.encoder_lr) == (1e-3, 1e-4, 1e-4)
    for options in (warm, cold):
        assert (options.training.joint_epochs, options.training.keep, options.training.batch_size) == (0, "last", 16)
        assert options.training.align_epochs == 10  # 40 updates of 4 a pass
        assert options.model.dropout == 0.1
        assert (options.labels, options.compare_labels) == ("none", [])
    assert parse("--few", 8).training.align_epochs == 40
    assert parse("--few", 256).training.lm_lr == pytest.approx(2e-5)
    assert parse("--few", 1000).training.align_epochs == 4
    assert parse("--few", 1000).training.lm_lr == pytest.approx(3e-5)
    for few in (4, 0, -1):
        with pytest.raises(UserError, match=f"--few {few}: must be 8 or more"):
            parse("--few", few)
    plain = parse("--lm", "some/lm")
    assert plain.training == TrainingOptions()
    assert given_flags() == frozenset()


def test_given_flags_are_kept_even_at_their_default(tmp_path: Path) -> None:
    default = TrainingOptions()
    given = parse(
        "--few", 64, "--training.lr", default.lr, "--training.keep=best", "--training.batch_size", default.batch_size,
        "--model.dropout", 0.3, "--training.joint-epochs", default.joint_epochs, "--labels", "mucn-crossfit", "--training.lm-lr", 0.5,
    )  # fmt: skip
    assert (given.training.lr, given.training.keep, given.training.batch_size) == (default.lr, "best", default.batch_size)
    assert (given.model.dropout, given.training.joint_epochs, given.labels) == (0.3, default.joint_epochs, "mucn-crossfit")
    assert (given.training.lm_lr, given.training.encoder_lr) == (0.5, 1e-5)
    with pytest.raises(UserError, match="--labels none"):  # labels that nothing would use
        parse("--few", 64, "--labels", "mucn-crossfit")
    (tmp_path / "some.yaml").write_text("few: 64\ntraining:\n  lr: 0.001\n")
    assert parse("--config", tmp_path / "some.yaml").training.lr == 1e-3


def test_few_above_the_size_of_train_is_refused(text_model: Path, data: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--few 500: train has 48 utterances"):
        run("--dataset", "sims", "--data", data, "--lm", text_model, "--few", 500, "--output", tmp_path / "run", *QUICK[:-1])


def test_an_encoder_that_never_rated_is_not_a_warm_start(text_model: Path, tmp_path: Path) -> None:
    """Its head starts at random, so it gets the rates of a plain language model; one that rated, those of the starter."""
    for rating_dim, rate in ((0, 1e-4), (8, 1e-5)):
        (tmp_path / "model").mkdir(exist_ok=True)
        (tmp_path / "model" / "config.json").write_text(json.dumps({"model_type": "skesl", "rating_dim": rating_dim}))
        assert parse("--few", 64, "--encoder", tmp_path).training.lm_lr == rate


def rating_encoder(folder: Path) -> Path:
    """A pretraining run whose encoder learned to rate, as far as its config says."""
    (folder / "model").mkdir(parents=True)
    (folder / "model" / "config.json").write_text(json.dumps({"model_type": "skesl", "rating_dim": 8}))
    return folder


def test_a_warm_start_has_defaults_of_its_own_and_flags_win(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    encoder, default = rating_encoder(tmp_path / "encoder"), TrainingOptions()
    for start in ("starter", encoder):
        warm = parse("--encoder", start)
        training = warm.training
        assert (training.align_epochs, training.joint_epochs, training.keep, training.batch_size) == (4, 4, "last", 16)
        assert (training.lr, training.encoder_lr, training.lm_lr, warm.model.dropout) == pytest.approx((3e-4, 3e-5, 3e-5, 0.1))
        assert warm.labels == "mucn-crossfit"
        assert "no-pretraining" not in warm.controls
        line = training_line(warm)
        assert "an encoder that learned to rate" in line
        assert "4 + 4 epochs" in line
        assert "as given" not in line
    given = parse("--encoder", encoder, "--training.lr", default.lr, "--training.joint-epochs", 7, "--controls", "no-pretraining")
    assert (given.training.lr, given.training.joint_epochs, given.training.align_epochs) == (default.lr, 7, 4)
    assert given.controls == ["no-pretraining"]
    assert training_line(given).endswith("--training.joint-epochs, --training.lr as given")
    python = make_options(MugOptions, {"dataset": "sims", "data": "x", "output": "run", "encoder": "starter", "training": {"lm_lr": 1e-6}})
    assert (python.training.lm_lr, python.training.keep) == (1e-6, "last")
    with pytest.raises(SystemExit):
        run_command(MugOptions, print, ["--dataset", "sims", "--data", "x", "--output", "run", "--encoder", "starter", "--print-config"])
    assert yaml.safe_load(capsys.readouterr().out)["training"]["align_epochs"] == 4
    cold = parse("--lm", "some/lm")
    assert cold.training == default
    assert "no-pretraining" in cold.controls
    assert training_line(cold).startswith("training (defaults): at most 15 + 15 epochs")


def test_a_run_that_was_started_with_the_plain_defaults_keeps_them(tmp_path: Path) -> None:
    same = ["--encoder", rating_encoder(tmp_path / "encoder"), "--output", tmp_path / "run"]
    before = to_plain(parse("--lm", "x"))
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text(yaml.safe_dump(before | {"lm": None, "encoder": str(same[1])}))
    resumed = parse(*same)
    assert resumed.training == TrainingOptions()
    assert resumed.model.dropout == 0.3
    assert "no-pretraining" in resumed.controls
    assert parse(*same, "--overwrite").training.align_epochs == 4
    (tmp_path / "run" / "config.yaml").write_text(yaml.safe_dump(to_plain(parse(*same[:2]))))
    assert parse(*same).training.align_epochs == 4


def test_studies_know_the_starter(text_model: Path, tmp_path: Path) -> None:
    name = f"starter:{text_model}"
    given = ["--dataset", "sims", "--data", "x.pkl", "--output", str(tmp_path)]
    options = parse_options(DataSizeOptions, [*given, "--encoder", name, "--more-encoders", name])
    first, _, plain = arms_of(options)
    assert first.name == f"pretrained ({name})"
    assert plain.name == "not pretrained"
    assert given_flags() == frozenset()
    with pytest.raises(UserError, match="joint-epochs 0: must be 1 or more"):  # labels that nothing would use
        parse_options(DataSizeOptions, [*given, "--encoder", name, "--training.joint-epochs", "0"])
