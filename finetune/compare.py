"""One table and one picture over several runs: mean, spread, number of seeds, and whether two runs differ."""

import sys
from pathlib import Path

if __package__ in (None, ""):  # run as a script: import from the checkout, never from this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from dataclasses import dataclass, field
from functools import partial

import tyro

from skesl_mug.console import CommandOptions, run_command
from skesl_mug.errors import UserError


@dataclass(kw_only=True)
class CompareOptions(CommandOptions):
    """Compare finished runs of finetune/run_mug.py on one dataset; the first is the one the others are held against.

    Two runs differ where both tests say so: paired over the seeds they share (t-test, at least three), and the bootstrap of their
    difference over the videos of the evaluated split.

    Example: python -m finetune.compare runs/mosi runs/mosi-no-pretraining --output comparison
    """

    runs: tyro.conf.Positional[list[Path]]
    """Folders of finished runs."""
    names: list[str] = field(default_factory=list)
    """What to call them, in their order; without it the folders' names."""
    output: Path = Path("comparison")
    """Folder for comparison.md, comparison.tex and comparison.png."""
    draws: int = 1000
    """Draws of the bootstrap."""
    published: bool = True
    """Set published figures of the dataset beside the runs, marked as such."""

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        if len(self.runs) < 2:
            raise UserError("RUN RUN …: wants two runs or more")
        if self.names and len(self.names) != len(self.runs):
            raise UserError(f"--names: wants one name for each run ({len(self.runs)}), got {len(self.names)}")


def main(options: CompareOptions) -> None:
    """Read the runs, write the files, print the table."""
    from finetune.comparison import read_comparison
    from finetune.report.pictures import result_dots
    from skesl_mug.files import write_atomically

    comparison = read_comparison(options.runs, options.names, options.draws, options.published)
    files = {"comparison.md": comparison.markdown().encode(), "comparison.tex": comparison.latex().encode()}
    files["comparison.png"] = result_dots(comparison.dots())
    for name, content in files.items():
        write_atomically(options.output / name, partial(_write_bytes, content))
    print(comparison.terminal() + "\n\n" + "\n".join(comparison.notes))
    print("\nwritten: " + ", ".join(str(options.output / name) for name in files))


def _write_bytes(content: bytes, path: Path) -> None:
    path.write_bytes(content)


if __name__ == "__main__":
    run_command(CompareOptions, main)
