"""Report of evaluated runs as one HTML page.

runs.py     reads run folders
figures.py  draws the figures
page.py     writes the page
"""

from m2distill_training.report.page import write_report

__all__ = ["write_report"]
