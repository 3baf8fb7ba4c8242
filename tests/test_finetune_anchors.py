"""Anchors of the label correction: how opinions are combined, which opinions a pretrained encoder offers, and what stays as it was."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from rated_texts import write_rated
from synthetic_corpus import SMALL, write_pickle
from synthetic_pretraining import options_of, write_made_dataset, write_text_model
from test_finetune_labels import COUNT, correlation, made_inputs
from test_finetune_run import run

from finetune.corpora.splits import LabelledSplit
from finetune.generator_options import CrossfitOptions, GeneratorOptions
from finetune.labels import LabelInputs, Opinions, make_generator
from finetune.labels.anchors import anchored_share, error_covariance, joint_prediction, mean_anchors, regression
from finetune.labels.crossfit import chosen_opinions, noise_levels, out_of_fold, train_scalar_mucn, with_anchors
from finetune.model.context import TokenContext
from finetune.model.encoders import EncoderSource
from finetune.model.minibatches import LazyStates, PreparedSplit
from finetune.model.opinions import PretrainedOpinions
from finetune.options import TrainOptions
from pretrain.encoder import load_encoder, load_tokenizer
from pretrain.options import ObjectiveOptions
from pretrain.pretraining import run_pretraining
from pretrain.rating import load_rater, rate_token_lists
from pretrain.text_states import TextStateCache
from pretrain.tokens import tokenise
from skesl_mug.errors import UserError

MANY = 20_000
FOLDS = [(np.flatnonzero(np.arange(MANY) % 5 != fold), np.flatnonzero(np.arange(MANY) % 5 == fold)) for fold in range(5)]
EVERY = np.ones(MANY, bool)


def readings(errors: np.ndarray, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Score [N], y [N] = score + noise of variance .09, and opinions [N, K]: score / 2 + errors of a given covariance, in odd units."""
    random = np.random.default_rng(seed)
    score = random.normal(size=MANY) * 0.4
    y = score + random.normal(size=MANY) * 0.3
    return score, y, 7.0 + 20.0 * (0.5 * score[:, None] + random.multivariate_normal(np.zeros(len(errors)), errors, MANY))


def text_opinion(*columns: np.ndarray) -> dict[str, Opinions]:
    return {"text": Opinions(tuple(f"opinion {place}" for place in range(len(columns))), np.column_stack(columns))}


def labels_of(inputs: LabelInputs, **options: object) -> np.ndarray:
    return make_generator("mucn-crossfit", GeneratorOptions(crossfit=CrossfitOptions(**options)))(inputs).labels["text"]  # type: ignore[arg-type]


def test_weights_are_the_best_ones_for_errors_of_any_covariance() -> None:
    errors = np.array([[0.04, 0.03, 0.0], [0.03, 0.09, 0.01], [0.0, 0.01, 0.16]])
    score, y, opinions = readings(errors)
    weights = regression(y, opinions)[1] * 20.0
    best = np.linalg.solve(0.16 * np.full((3, 3), 0.25) + errors, np.full(3, 0.5 * 0.16))  # for the score, which y only shows with noise
    assert weights == pytest.approx(best, abs=0.03)
    joint = joint_prediction(y, opinions, EVERY, FOLDS)
    assert correlation(joint, score) > correlation(opinions @ np.ones(3), score) + 0.01
    assert error_covariance(y, opinions, 0.09) / 4 == pytest.approx(errors, abs=0.015)  # in the unit of y: divided by slopes of 1 / 2


def test_copies_count_once_noise_not_at_all_and_units_do_not_matter() -> None:
    score, y, opinions = readings(np.diag([0.09, 0.09]))
    once = joint_prediction(y, opinions, EVERY, FOLDS)
    copied = joint_prediction(y, opinions[:, [0, 1, 1, 1]], EVERY, FOLDS)
    assert copied == pytest.approx(once, abs=0.02)
    assert joint_prediction(y, 3.0 - 100.0 * opinions, EVERY, FOLDS) == pytest.approx(once, abs=1e-9)
    noise = np.random.default_rng(1).normal(size=(MANY, 1))
    weights = regression(y, np.column_stack([opinions, noise, np.full(MANY, 4.0)]))[1]
    assert abs(weights[2]) < 0.05 * weights[0] * opinions[:, 0].std()
    assert weights[3] == 0.0
    perfect = regression(y, np.column_stack([opinions, score]))[1]
    assert perfect[2] == pytest.approx(1.0, abs=0.05)
    assert np.abs(perfect[:2] * opinions.std(0)).max() < 0.02


def test_share_of_the_opinions_lies_between_its_bounds() -> None:
    independent, tau = np.diag([0.04, 0.04]), 0.36
    _, y, (first, second) = (part.T for part in readings(independent))
    true = 0.09 / tau**2
    share, upper = anchored_share(y, first, second, tau, 0.4)
    assert upper == pytest.approx(true, abs=0.05)  # independent errors: the upper bound is the truth
    assert 0.4 < share < upper
    _, y, (first, second) = (part.T for part in readings(np.array([[0.04, 0.03], [0.03, 0.04]])))
    assert anchored_share(y, first, second, tau, 0.4)[1] > true  # common errors: only a bound
    assert anchored_share(y, first, first, tau, 0.4)[0] == pytest.approx(0.4)  # a copy says nothing new
    assert anchored_share(y, first, second, tau, 0.02)[0] <= 0.04  # nothing of y comes from other modalities
    noise = np.random.default_rng(2).normal(size=MANY)
    assert anchored_share(y, first, noise, tau, 0.4)[0] == pytest.approx(0.4, abs=0.06)
    assert anchored_share(y, first, np.zeros(MANY), tau, 0.4)[0] == 0.4


def test_without_anchors_every_number_is_what_it_was() -> None:
    inputs, _ = made_inputs(3)
    options = CrossfitOptions(steps=60)
    predictions = out_of_fold(inputs, options)
    levels = noise_levels(inputs.y, predictions, "r2", inputs.present)
    learned = make_generator("mucn-crossfit", GeneratorOptions(crossfit=options))(inputs)
    for salt, name in enumerate(inputs.modalities):
        network = train_scalar_mucn(predictions[name], inputs.y, options, inputs.seed, salt)
        y = torch.as_tensor(inputs.y, dtype=torch.float32)
        with torch.no_grad():
            expected = network(torch.as_tensor(predictions[name], dtype=torch.float32), y, torch.full_like(y, levels[name]["sigma"]))
        assert np.array_equal(learned.labels[name], expected.clamp(-1, 1).double().numpy())
    assert learned.facts == {"noise": levels, "folds_by": "video"}
    anchored = replace(inputs, opinions=text_opinion(inputs.y))
    assert np.array_equal(labels_of(anchored, steps=60, anchors=["none"]), learned.labels["text"])
    assert np.array_equal(labels_of(anchored, steps=60, anchors=["audio"]), learned.labels["text"])


def test_anchors_bring_labels_closer_to_the_hidden_truth() -> None:
    gains = {"noisy": [], "perfect": [], "useless": []}  # type: dict[str, list[float]]
    for seed in range(3):
        inputs, truth = made_inputs(seed)
        random = np.random.default_rng(seed)
        vague = inputs.descriptors["text"] + random.normal(size=(COUNT, 12)) * 2.0  # from which the text can be told only in part
        inputs = replace(inputs, descriptors={**inputs.descriptors, "text": vague})
        plain = correlation(labels_of(inputs), truth["text"])
        opinions = {
            "noisy": truth["text"] + random.normal(size=COUNT) * 0.3,
            "perfect": truth["text"],
            "useless": random.normal(size=COUNT),
        }
        for name, opinion in opinions.items():
            gains[name].append(correlation(labels_of(replace(inputs, opinions=text_opinion(opinion))), truth["text"]) - plain)
    assert np.mean(gains["noisy"]) > 0.01
    assert min(gains["perfect"]) > max(gains["noisy"])
    assert np.abs(gains["useless"]).max() < 0.02


def test_the_label_of_the_modality_that_makes_y_stays_with_anchors() -> None:
    inputs, truth = made_inputs(1, text_alone_makes_y=True)
    random = np.random.default_rng(0)
    anchored = replace(inputs, opinions=text_opinion(truth["text"] + random.normal(size=COUNT) * 0.4))
    assert correlation(labels_of(anchored), truth["text"]) > 0.97


def test_the_joint_prediction_takes_y_of_an_utterance_only_through_its_coefficients() -> None:
    inputs, truth = made_inputs(2)
    anchored = replace(inputs, opinions=text_opinion(truth["text"]))
    video = np.array([group == "v3" for group in inputs.groups])
    changed = np.where(video, -inputs.y, inputs.y)
    options = CrossfitOptions()
    made = []
    for y in (inputs.y, changed):
        one = replace(anchored, y=y)
        made.append(with_anchors(one, options, out_of_fold(one, options), chosen_opinions(one, options))[0]["text"][video])
    assert np.abs(made[0] - made[1]).max() < 0.02


def test_opinions_are_checked_and_absent_rows_ignored() -> None:
    inputs, truth = made_inputs(0)
    with pytest.raises(UserError, match=r"opinions on text: must be numbers \[400, 1\]"):
        labels_of(replace(inputs, opinions=text_opinion(truth["text"][:5])))
    here = np.arange(COUNT) % 5 != 0
    opinion = np.where(here, truth["text"], np.nan)
    with pytest.raises(UserError, match="opinions on text: opinion 0 has no finite number for 80 of 400 utterances; fill them in"):
        labels_of(replace(inputs, opinions=text_opinion(opinion)))
    labels = labels_of(replace(inputs, opinions=text_opinion(opinion), present={**inputs.present, "text": here}), steps=30)
    assert np.array_equal(labels[~here], inputs.y[~here])
    with pytest.raises(UserError, match="anchors auto text: choose auto, none, or some of"):
        TrainOptions(
            dataset="mosi", data="x", output="y", lm="embedded",  # type: ignore[arg-type]
            generators=GeneratorOptions(crossfit=CrossfitOptions(anchors=["auto", "text"])),
        )  # fmt: skip


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    """A dataset, a run on rated sentences, and a run distilled from it on the dataset's text, voice and face."""
    folder = tmp_path_factory.mktemp("pretrained")
    given = write_made_dataset(folder / "data"), write_text_model(folder / "lm")
    rated = write_rated(folder / "rated.csv", 200)
    plain = {"rated": str(rated), "freeze_lm": False, "lm_lr": 3e-3, "trackers": [], "epochs": 2}
    first = {**plain, "data": [], "objective": ObjectiveOptions(word=0.0, rated=1.0)}
    run_pretraining(options_of(given, folder / "rater", **first))
    second = {**plain, "data": [str(given[0])], "objective": ObjectiveOptions(word=0.0, distil=1.0), "teacher": str(folder / "rater")}
    run_pretraining(options_of(given, folder / "distilled", **second))
    return folder


def prepared(run, texts: list[str], folder, audio_width: int = 33) -> PreparedSplit:
    """A training split of these transcripts with random voice and face; the second utterance has no voice."""
    random = np.random.default_rng(0)
    audio = [None if row == 1 else random.normal(size=(20, audio_width)).astype(np.float32) for row in range(len(texts))]
    vision = [random.normal(size=(6, 8)).astype(np.float32) for _ in texts]
    split = LabelledSplit([f"u{row}" for row in range(len(texts))], ["v"] * len(texts), np.zeros(len(texts)), texts, audio, vision)
    tokens = tokenise(texts, load_tokenizer(run))
    states = LazyStates(lambda: TextStateCache.build(load_encoder(run, 33, 8)[0].eval(), tokens, folder, progress=False))
    return PreparedSplit(split, tokens, states, True, torch.zeros(len(texts)), 0)


def opinions_of(run, texts: list[str], folder, audio_width: int = 33) -> PretrainedOpinions:
    train = prepared(run, texts, folder, audio_width)
    return PretrainedOpinions(EncoderSource(str(run), None), train, (audio_width, 8), torch.device("cpu"))


TEXTS = ["the film was great", "awful food", "the phone is really dull", "a lovely hotel"]


def test_an_encoder_rates_text_voice_and_face_alone(pretrained, tmp_path, capsys) -> None:
    run = pretrained / "distilled"
    torch.manual_seed(5)
    drawn = torch.rand(1)
    torch.manual_seed(5)
    found = opinions_of(run, TEXTS, tmp_path / "states")
    assert set(found) == {"text", "audio", "vision"}
    assert torch.equal(torch.rand(1), drawn)  # no draw of the training changes
    model, tokenizer = load_rater(run)
    expected = rate_token_lists(model, tokenise(TEXTS, tokenizer), 0)
    assert found["text"].values[:, 0] == pytest.approx(expected, abs=1e-3)  # states are stored in half precision
    assert found["text"].names == ("pretrained rating",)
    train = prepared(run, TEXTS, tmp_path / "states")
    after = replace(train, context=TokenContext([[9, 12, 3]] * len(TEXTS), 1), states=None)  # the encoder learned without context
    again = PretrainedOpinions(EncoderSource(str(run), None), after, (33, 8), torch.device("cpu"))
    assert again["text"].values[:, 0] == pytest.approx(expected, abs=1e-5)
    voice = train.split.audio[3]
    ids = torch.tensor(tokenise([""], tokenizer))
    with torch.no_grad():
        alone = model.rate(input_ids=ids, attention_mask=torch.ones_like(ids), audio=torch.tensor(voice)[None])
    assert found["audio"].values[3, 0] == pytest.approx(float(alone), abs=1e-5)
    assert np.isfinite(found["audio"].values).all()
    other = opinions_of(run, TEXTS, tmp_path / "other", audio_width=20)  # not the columns of pretraining: nothing was learned about them
    assert set(other) == {"text", "vision"}
    assert set(opinions_of(pretrained / "rater", TEXTS, tmp_path / "text")) == {"text"}
    assert dict(PretrainedOpinions(EncoderSource(None, str(pretrained / "lm")), prepared(run, TEXTS, tmp_path / "s"), (33, 8), "cpu")) == {}
    assert "note:" not in capsys.readouterr().out


def test_ratings_of_another_language_or_of_these_very_transcripts_are_left_out(pretrained, tmp_path, capsys) -> None:
    chinese = ["这部电影太精彩了", "质量很差", "我很喜欢", "不好"]
    for _ in range(2):  # as for two seeds
        assert not opinions_of(pretrained / "rater", chinese, tmp_path / "chinese")
    assert capsys.readouterr().out.count("note: no anchors: the encoder learned to rate texts of another language (LATIN letters") == 1
    seen = [line.split(",")[0] for line in (pretrained / "rated.csv").read_text().splitlines()[1:9]]
    assert not opinions_of(pretrained / "rater", seen, tmp_path / "seen")
    assert "8 of 8 transcripts are among the rated texts" in capsys.readouterr().out


def test_the_report_shows_each_opinion_its_noise_and_what_it_brings(pretrained, tmp_path) -> None:
    data = write_pickle(tmp_path / "sims.pkl", {"train": 60, "valid": 16, "test": 12})
    options = [
        "--dataset", "sims", "--data", data, "--encoder", pretrained / "rater", "--freeze-lm", "--model.frames", "statistics",
        "--controls", "constant", "--compare-labels", "copy", "--seeds", 1, 2, *SMALL,
    ]  # fmt: skip
    entry = run(*options, "--output", tmp_path / "run")["anchors"]
    assert set(entry) == {"text"}
    assert set(entry["text"]["opinions"]) | set(entry["text"]["left_out"]) >= {"pretrained rating"}
    facts = json.loads((tmp_path / "run" / "checkpoints" / "seed-1" / "mucn-crossfit.json").read_text())["facts"]["anchors"]["text"]
    assert set(facts["without"]) == {"MAE", "Corr"}
    report = (tmp_path / "run" / "report.md").read_text()
    assert "rating by the pretrained encoder" in report
    assert "MAE and Corr compare the labels without → with anchors" in report
    unknown = write_pickle(tmp_path / "unknown.pkl", {"train": 60, "valid": 16, "test": 12}, human=False)
    options[3], labels = unknown, []
    other = run(*options, "--output", tmp_path / "other")["anchors"]["text"]
    for name in ("run", "other"):  # the comparison changes nothing that is learned
        labels.append(np.load(tmp_path / name / "checkpoints" / "seed-1" / "mucn-crossfit_labels.npz")["text"])
    assert np.array_equal(*labels)
    assert "without" not in other
    assert other["opinions"] == entry["text"]["opinions"]
    assert "without → with anchors to" not in (tmp_path / "other" / "report.md").read_text()


def test_the_mean_over_seeds_counts_where_an_opinion_was_left_out() -> None:
    level = {"text": {"lambda": 0.5}}
    used = {"weights": {"out-of-fold": 0.1, "api": 0.3}, "noise": {"out-of-fold": 0.2, "api": None}, "lambda_without": 0.3}
    seeds = [{"anchors": {"text": used}, "noise": level}, {"anchors": {"text": {"left_out": ["api"]}}, "noise": level}, {"noise": level}]
    entry = mean_anchors(seeds, 3.0)["text"]
    assert entry["opinions"]["api"] == {"weight": 0.9, "noise": None, "seeds": 1}
    assert entry["left_out"] == {"api": 1}
    assert (entry["lambda"], entry["lambda_without"]) == (0.5, 0.3)
    assert mean_anchors([{"noise": level}], 3.0) == {}
