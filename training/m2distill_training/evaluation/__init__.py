"""Evaluation of checkpoints and runs.

evaluate.py      success rates of a checkpoint and of a run
rollout_specs.py episodes to run, and their results
rollout_jobs.py  jobs of episodes in worker processes, and the file of finished ones
acting_weights.py which weights act for an instruction, so that equal episodes run once
episode_runner.py episodes of one checkpoint and task in this process
batched_policy.py inference for several episodes at once
rollout.py       one closed-loop episode
compare.py       comparison of strategies over seeds
compared_runs.py evaluated runs of a comparison: reading, grouping, checks
paired.py        statistics of paired runs
metrics.py       lifelong-learning metrics and intervals
overlay.py       images of an episode's video
drift.py         drift of latents on old tasks
"""
