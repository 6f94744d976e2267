"""Run folders: what a run writes, and how it is read again.

run_folder.py   paths, records and states of a run
records.py      JSON files and lines: whole, checked and locked
provenance.py   versions, machine and source of a run
tensorboard.py  events for TensorBoard
tracking.py     a copy of the log in wandb, mlflow or trackio
"""
