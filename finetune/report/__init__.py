"""The report of a fine-tuning run: `sections.write_report(run)` writes `report.html` and `report.md` into the run folder."""
