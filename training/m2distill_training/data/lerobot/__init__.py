"""LeRobot datasets, version 3.0.

layout.py          names, types and units
lerobot_import.py  datasets as LIBERO-format files
lerobot_export.py  LIBERO-format files as a dataset
statistics.py      statistics of features
"""
