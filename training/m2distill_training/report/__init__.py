"""What runs have learned and kept, for people: runs.py reads the folders, figures.py draws, page.py writes the page."""

from m2distill_training.report.page import write_report

__all__ = ["write_report"]
