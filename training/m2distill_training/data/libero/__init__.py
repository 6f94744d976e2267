"""LIBERO's files.

reader.py             demonstrations, checked
writer.py             new demonstration files
hdf5_checks.py        checks of HDF5 files of unknown origin
libero_checkpoint.py  LIBERO's own checkpoints
"""
