"""Demonstrations: reading, storing and sampling.

actions.py      range of actions
store.py        memory-mapped frames of a dataset
windows.py      training windows and their order
replay.py       choice of learned and replayed demos
task_memory.py  demos that a run keeps of its tasks
sample_rng.py   random numbers of samples
videos.py       video files
libero/         LIBERO's HDF5 files and checkpoints
lerobot/        LeRobot datasets
rosbag/         recorded episodes
"""
