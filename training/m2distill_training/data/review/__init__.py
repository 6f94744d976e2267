"""Review of demonstrations: one view of HDF5 files, LeRobot datasets and bags, and new sets made of chosen episodes.

episodes.py   opens a set and reads its episodes
outliers.py   rules that flag episodes
plots.py      curves of an episode as SVG
page.py       one HTML page per set, with films, plots and check boxes
choices.py    the file of choices that the page saves
edit.py       drop, trim and merge: writes a new set, the old one is unchanged
hdf5_copy.py  copies demos of HDF5 files, whole or in part
rerun_file.py the same content for the Rerun viewer
"""
