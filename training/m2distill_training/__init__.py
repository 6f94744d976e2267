"""Offline training, evaluation and promotion of policies. Importing this package imports nothing else.

config.py     settings of a run
presets.py    complete settings by name
data/         demonstrations
losses/       losses
strategies/   lifelong-learning strategies
engine/       training
runs/         run folders
evaluation/   success rates and drift
promotion/    promotion to the robot
report/       the report page
experiments/  demo and study
execution/    parallel jobs
bench/        benchmarks
utils/        shared helpers
cli/          the commands
"""
