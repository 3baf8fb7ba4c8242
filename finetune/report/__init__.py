"""The report of a fine-tuning run: `write_report(run)` reads the run's folder and writes `report.html` and `report.md` into it."""

from finetune.report.sections import write_report

__all__ = ["write_report"]
