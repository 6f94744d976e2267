"""LIBERO as a robot: simulation, assets, scripted experts and demonstration collection.

Map (read in this order):
    suites.py          which suites and tasks exist, their instructions, their initial states, which are held out
    assets.py          where 3-D assets come from: a given folder, an installation, the hub, or the built-in set
    builtin/           the built-in set: LIBERO's objects in boxes, cylinders and flat colours, written as MJCF
    renderer.py        offscreen pictures of a MuJoCo model, upright
    libero_env.py      the only import of robosuite and LIBERO: reset, step, render, success, on plain arrays
    experts/           scripted experts (privileged state in, action out)
    collect.py         experts -> LIBERO-format HDF5
    ros/               the thin ROS shell: the simulator as a node

Import rule: nothing here imports m2distill_training; only ros/ imports rclpy; of the policy core, only errors is used
outside ros/.

This file imports nothing, so that importing one module never pays for another.
"""
