"""Control loop without ROS.

- `session`: observations in, a command or a reason to hold out; no clock, no torch
- `inference`, `policy_thread`, `precision`: the network as a policy, and its thread
- `pacer`, `timing_stats`: schedule of the steps, and their timing
- `teleop`, `pose_target`: joystick input as commands; target poses of policy and operator, and the pose of a stop
"""
