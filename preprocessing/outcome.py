"""What a preprocessing job says at its end."""

from pathlib import Path

from preprocessing.schema import DatasetInfo
from preprocessing.transcription.simplified import NOT_SIMPLIFIED
from skesl_mug.console import next_command
from skesl_mug.wording import counted


def summarise(info: DatasetInfo, output: str, folder: Path) -> None:
    """A few readable lines: what was kept, how long it took, and what comes next. `folder` is where the files of `output` lie here."""
    counts, seconds = info.counts, info.seconds
    kept, skipped = counts["kept"], counts["skipped"]
    print(f"\nkept      {counted(kept, 'utterance')}, {counts['hours'] * 60:.1f} minutes")
    if skipped:
        print(
            "skipped   "
            + ", ".join(f"{count} {reason.replace('_', ' ')}" for reason, count in skipped.items())
            + f" (details: {folder / 'clips.csv'})"
        )
    if counts["mean_face_rate"] is not None:
        print(f"faces     in {counts['mean_face_rate']:.1%} of the frames, {counted(counts['kept_without_face'], 'utterance')} without any")
    chinese = counts["languages"].get("zh", 0) if (info.asr or {}).get("chinese") == NOT_SIMPLIFIED else 0
    if chinese:
        print(f"note      the Chinese text of {counted(chinese, 'utterance')} is {NOT_SIMPLIFIED}")
    rate = (info.asr or {}).get("word_error_rate")
    if rate is not None:
        print(f"words     word error rate {rate['value']:.1%} over {counted(rate['utterances'], 'utterance')} with a true transcript")
    total, heard = seconds.get("total", 0.0), seconds.get("media", 0.0)
    if total:
        stages = ", ".join(f"{name} {value:.1f}" for name, value in seconds.items() if name not in ("total", "media"))
        print(f"time      {total:.1f} s, {heard / total:.1f} times real time; seconds by stage over all processes: {stages}")
        print(f"memory    {info.peak_memory_mb:.0f} MB at most, all processes together")
    print(f"dataset   {output}")
    if kept:
        print(f"summary   {folder / 'summary.html'}")
    if kept and info.label_range is not None:
        command = next_command("finetune", "finetune/run_mug.py")
        print(f"next      {command} --dataset custom --data {output} --lm embedded --freeze-lm --output RUN")
    elif kept:
        command = next_command("pretrain", "pretrain/run.py")
        print(f"next      {command} --data {output} --lm embedded --freeze-lm --output RUN")
