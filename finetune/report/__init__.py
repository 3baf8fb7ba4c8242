"""The report of a fine-tuning run: `write_report(run)` writes `report.html` and `report.md` into the run folder."""

from finetune.report.sections import write_report

__all__ = ["write_report"]
