"""Executables: the lifecycle nodes `policy` and `recorder`, and the node `teleop`.

Each module has one node class and `main`. A node declares its parameters (`bringup/parameters.py`), handles its
lifecycle and services, and connects the parts in `ros/policy`, `ros/recorder` or `ros/teleop`.
"""
