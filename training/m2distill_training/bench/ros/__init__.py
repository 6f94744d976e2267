"""Clients over ROS 2 that benchmarks start as processes.

latency_probe.py  latency of a policy's commands
fake_robot.py     a robot's cameras and joints
soak_client.py    load and counts of a running system
"""
