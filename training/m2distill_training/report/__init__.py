"""Report of evaluated runs as one HTML page, and tables of a comparison.

runs.py        reads run folders
figures.py     draws the figures
styles.py      colours by method, lines by seed
films.py       films, and the matrix that leads to them
tables.py      tables as CSV and LaTeX
page.py        writes the page
comparison.py  tables and figure of m2distill compare
"""

from m2distill_training.report.page import write_report

__all__ = ["write_report"]
