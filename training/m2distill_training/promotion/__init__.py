"""Promotion of checkpoints to the robot.

gate.py        checks that a checkpoint keeps the earlier tasks
thresholds.py  limits of the gate
promotion.py   moves and rolls back the link `current`
"""
