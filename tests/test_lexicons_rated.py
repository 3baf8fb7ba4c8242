"""Rated sentences: the published set, and the overlap with a corpus."""

import io
import math
import os
import tarfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lexicons.rated import HUTTO, HUTTO_SHA256, INNER_ARCHIVE, RatedTexts, load_rated, shared_ngrams
from lexicons.rated_texts import join_groups
from skesl_mug.errors import UserError

BOM = b"\xef\xbb\xbf"
MOVIE = (
    b"1\t2\tIt's &amp;amp; was good\r\n2\t-4\tBad \"film\r\n3\t0.5\tso  SO, caf\xc3\xa9!\r\n",
    b"3\t0.5\t0.5\t[0, 1]\r\n2\t-4\t0\t[-4, -4]\r\n1\t2\t1\t[1, 3]\r\n",
)
AMAZON = (
    b"1_1\t1\tplays dvds\r\n1_2\t2\tone &amp; only\r\n2_1\t3\tbad film\r\n",
    BOM + b"1_2\t2\t1\t[1, 3]\r\n1_1\t1\t1\t[0, 2]\r\n2_1\t3\t\t[2, 4]\r\n",
)
NYT = (BOM + b"1_1\t0\tNo news\r\n", b"1_1\t0\t1\t[-1, 1]\r\n")
TWEETS = (
    b"1\t1\tYay\r\n2\t1.44\tyay!\r\n3\t1\tunrated\r\n3\t2\tagain\r\n",
    b"2\t2.26\t1.2\t[1, 4]\r\n1\t1\t0\t[1, 1]\r\n",
)


def add(archive, name, content):
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))


def tar(files):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in files.items():
            add(archive, name, content)
    return buffer.getvalue()


def sdist(path, **changed):
    """A tiny source archive of the published form."""
    parts = {"movieReviewSnippets": MOVIE, "amazonReviewSnippets": AMAZON, "nytEditorialSnippets": NYT, "tweets": TWEETS, **changed}
    inner = {}
    for name, (truth, ratings) in parts.items():
        inner[f"hutto_ICWSM_2014/{name}_GroundTruth.txt"] = truth
        inner[f"hutto_ICWSM_2014/{name}_anonDataRatings.txt"] = ratings
    path.write_bytes(tar({f"vaderSentiment-2.5/{INNER_ARCHIVE}": tar(inner)}))
    return path


@pytest.fixture
def published(tmp_path, monkeypatch) -> RatedTexts:
    path = sdist(tmp_path / "vaderSentiment-2.5.tar.gz")
    monkeypatch.setattr("lexicons.rated.fetch_sdist", lambda *wanted, **more: path)
    return load_rated(HUTTO)


def test_the_published_set_is_read_as_its_authors_wrote_it(published):
    assert published.texts[:5] == ["It's & was good", 'Bad "film', "so  SO, café!", "plays dvds", "one & only"]
    assert published.scores.tolist() == pytest.approx([1.5, -3, 0.375, 0.75, 1.5, 2.25, 0, 0.75, 1.08, 0.75])
    assert published.scores.dtype == published.spreads.dtype == np.float32
    assert len(published.sha256) == 64
    assert "Hutto and Gilbert 2014" in published.name
    assert len(published) == 10


def test_ratings_are_joined_by_id_and_unknown_where_they_are_another_texts(published):
    nan = math.nan  # tweet 2: another mean; tweet 3: no ratings
    np.testing.assert_allclose(published.spreads, [0.75, 0, 0.375, 0.75, 0.75, 0.75, 0.75, 0, nan, nan], atol=1e-6)
    assert published.notes == (
        "tweet: 1 sentences and 0 ratings with a repeated id are left out",
        "tweet: spread unknown for 2 of 3 texts whose listed ratings have another mean",
    )


def test_groups_are_documents_and_texts_of_the_same_words_share_one(published):
    groups = dict(zip(published.texts, published.groups, strict=True))
    assert groups["plays dvds"] == groups["one & only"] == "amazon-1"
    assert groups["bad film"] == groups['Bad "film'] == "movie-2"
    assert groups["Yay"] == groups["yay!"] == "tweet-1"
    assert groups["No news"] == "nyt-1"
    assert len(set(published.groups)) == 7


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"no archive", "damaged"),
        (tar({"x/readme": b"1"}), "it does not contain additional_resources/hutto_ICWSM_2014.tar.gz"),
        (tar({INNER_ARCHIVE: tar({"x/readme": b"1"})}), "does not contain movieReviewSnippets_anonDataRatings.txt"),
        (tar({INNER_ARCHIVE: b"\x1f\x8b"}), "damaged"),
        (tar({INNER_ARCHIVE: b"1" * 90_000})[:80], "damaged"),
    ],
)
def test_a_damaged_archive_is_reported(tmp_path, content, said):
    path = tmp_path / "other.tar.gz"
    path.write_bytes(content)
    with pytest.raises(UserError, match=said) as caught:
        load_rated(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("truth", [b"1\t9\tx\n", b"1\tnan\tx\n", b"1\t2\t\n", b"1\tgood\tx\n", b"1\t2\n", b"1\t2\t\xff\n"])
def test_damaged_lines_of_the_archive(tmp_path, truth):
    with pytest.raises(UserError, match="is not the source archive of vaderSentiment"):
        load_rated(sdist(tmp_path / "a.tar.gz", movieReviewSnippets=(truth, b"1\t2\t1\t[1, 3]\n")))


@pytest.mark.skipif("SKESL_MUG_NETWORK_TESTS" not in os.environ, reason="needs a package index: set SKESL_MUG_NETWORK_TESTS=1 to run")
def test_the_published_set_really_fetched(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("SKESL_MUG_CACHE", str(tmp_path))
    rated = load_rated()
    assert capsys.readouterr().err == "Fetching vaderSentiment 2.5 (2.5 MB, rated sentences) with pip ...\n"
    assert rated.sha256 == HUTTO_SHA256
    assert [sum(group.startswith(part) for group in rated.groups) > 3000 for part in ("movie", "amazon", "nyt", "tweet")] == [True] * 4
    assert len(rated) == 23_703
    assert np.isnan(rated.spreads).sum() == 199
    assert rated.texts[2] == "Effective but too tepid biopic"
    assert rated.scores[2] == pytest.approx(-0.45)
    assert np.abs(rated.scores).max() <= 3
    assert load_rated().texts == rated.texts
    assert capsys.readouterr().err == ""


@given(st.lists(st.tuples(st.integers(0, 9), st.sampled_from("aAbcdefghij")), max_size=30))
def test_joined_groups_are_the_connected_parts(pairs):
    groups, texts = [f"g{group}" for group, _ in pairs], [text for _, text in pairs]
    joined = join_groups(groups, texts)
    # an independent transcription: spread the lowest place until nothing changes
    places = list(range(len(pairs)))
    for _ in pairs:
        places = [
            min(places[b] for b in range(len(pairs)) if groups[a] == groups[b] or texts[a].lower() == texts[b].lower())
            for a in range(len(pairs))
        ]
    assert joined == [groups[place] for place in places]


def test_shared_ngrams():
    others = ["One two THREE four, five -- six seven.", "这部电影很好看"]
    texts = ["so: two three four five six seven", "one two three four five", "two three four five seven six", "我说这部电影很好", ""]
    assert shared_ngrams(texts, others).tolist() == [True, False, False, True, False]
    assert shared_ngrams(texts, others, n=5).tolist() == [True, True, False, True, False]
    assert shared_ngrams([], others).shape == (0,)
    assert shared_ngrams(texts, []).tolist() == [False] * 5
    with pytest.raises(ValueError, match="at least one word"):
        shared_ngrams(texts, others, n=0)
