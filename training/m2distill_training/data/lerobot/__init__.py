"""LeRobot datasets: export in version 3.0, import of 3.0 and 2.1.

layout.py          names, types and units
layouts.py         named layouts of datasets, and how their images are turned
dataset.py         episodes of a dataset
tables.py          parquet tables and images
lerobot_import.py  datasets as LIBERO-format files
lerobot_export.py  LIBERO-format files as a dataset
statistics.py      statistics of features
"""
