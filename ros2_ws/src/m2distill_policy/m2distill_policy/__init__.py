"""The policy core: everything between raw sensor arrays and a checked robot command.

Map (read in this order; docs/architecture.md has every module):
    spec.py         what the policy sees and commands, in SI units; travels inside every checkpoint
    images.py     what cameras and bags hold -> (H, W, 3) uint8 RGB, or a refusal
    observation.py  raw arrays -> model input; the only place that flips, resizes, scales or orders joints
    models/         the network: per-view image encoders, temporal transformer, Gaussian-mixture head
    text.py         instruction -> sentence embedding
    checkpoint.py   a policy on disk: strict, content-addressed, free of pickle
    inference.py    a loaded checkpoint that acts one step at a time
    action.py       mixture sample -> Command, or Hold(reason)
    stream.py       newest value of one input with its age limit
    safety.py       limits applied to every command; arms.py their presets; poses.py; parameters.py settings as fields
    session.py      the control loop without a clock: observe_*(value, stamp_ns), tick(now_ns)
    pacer.py        when to act; cadence.py how regularly it did; instructions.py which known one a text means
    bringup.py      which ROS nodes run with which parameters
    ros/            the thin ROS 2 shell round the session

Import rule, enforced by tests/policy/test_import_rule.py: nothing here imports m2distill_sim or m2distill_training;
only ros/ imports rclpy; session.py and what it imports never import torch; models/ never imports session.

This file imports nothing, so that importing one module never pays for another.
"""
