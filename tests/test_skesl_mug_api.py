"""The public API: `import skesl_mug as sm`."""

import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from test_finetune_corpora import mmsa_split

import skesl_mug as sm

HEAVY = {"torch", "numpy", "pandas", "transformers", "matplotlib", "tyro"}


@pytest.mark.parametrize("name", sm.__all__)
def test_every_public_name_resolves_and_has_a_docstring(name: str) -> None:
    public = getattr(sm, name)
    assert (public.__doc__ or "").strip(), name
    assert name in dir(sm)


def test_importing_the_package_imports_no_library() -> None:
    code = "import sys, skesl_mug; print(' '.join(sys.modules))"
    loaded = set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split())
    assert not HEAVY & loaded


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'finetun'"):
        sm.finetun  # noqa: B018


def test_a_corpus_is_loaded_and_predictions_are_scored(tmp_path: Path) -> None:
    content = {name: mmsa_split(name, seed=place) for place, name in enumerate(("train", "valid", "test"))}
    (tmp_path / "aligned.pkl").write_bytes(pickle.dumps(content))
    corpus = sm.load_corpus("mosi", str(tmp_path / "aligned.pkl"))
    assert isinstance(corpus, sm.LabelledCorpus)
    assert repr(corpus) == "LabelledCorpus(mosi: train 12, dev 12, test 12; text, audio, vision; labels from -3 to 3)"
    assert repr(corpus.splits["dev"]) == "LabelledSplit(12 samples: text, audio, vision)"  # and not every array
    test = corpus.splits[corpus.evaluated_on]
    metrics = sm.score(np.zeros(len(test)), test.label, corpus.dataset)
    assert metrics["MAE"] == pytest.approx(float(np.abs(test.label).mean()), abs=1e-3)
    with pytest.raises(sm.UserError, match="does not exist"):
        sm.load_corpus("mosi", tmp_path / "nothing.pkl")
