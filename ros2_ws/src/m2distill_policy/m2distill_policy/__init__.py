"""Policy core and its ROS 2 nodes: everything between raw sensor arrays and a checked robot command.

The contract, imported by every other room:
    spec.py        names, sizes and units of a policy's inputs and actions; part of every checkpoint
    action.py      mixture sample -> Command, or Hold with a reason
    errors.py      errors that a user can fix
    checkpoint.py  a policy on disk: strict, content-addressed, without pickle

Rooms, in reading order:
    observations/  raw sensor data -> model input
    models/        the network: image encoders, temporal transformer, mixture head
    language/      instruction -> sentence embedding, and the known instruction that a text means
    safety/        arm files, limits on inputs and commands, joint limits
    control/       the control loop without ROS: session, inference, pacing
    recording/     episodes on disk, and their recovery after a crash
    bringup/       which nodes run with which parameters, and the command line behind `m2distill run`
    utils/         durable files, settings as dataclass fields
    ros/           the ROS 2 nodes around the session

Invariant, enforced by tests/policy/test_import_rule.py: nothing here imports m2distill_sim or m2distill_training; only
ros/ imports rclpy; control/session.py and its imports never import torch; models/ never imports the session.

This file imports nothing, so importing one module never loads another.
"""
