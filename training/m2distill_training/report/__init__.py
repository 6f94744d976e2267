"""Report of evaluated runs as one HTML page, and tables of a comparison.

runs.py        reads run folders
figures.py     draws the figures
page.py        writes the page
comparison.py  tables and figure of m2distill compare
"""

from m2distill_training.report.page import write_report

__all__ = ["write_report"]
