"""LIBERO as a robot: simulation, assets, scripted experts and demonstration collection.

Inventory, in reading order:
    suites.py          suites and tasks, their instructions and initial states, and which states are held out
    assets.py          sources of 3-D assets: a given folder, an installation, the hub, or the built-in set
    builtin/           the built-in set: LIBERO's objects as boxes and cylinders in flat colours, written as MJCF
    task_files.py      checks of the files that a task needs, before anything is loaded
    renderer.py        offscreen images of a MuJoCo model
    arm_env.py         a robosuite task as plain arrays: reset, step, render, success
    kinematics.py       frames, joints and cameras of the arm, and its URDF
    libero_env.py      LIBERO's tasks
    lift.py            robosuite's Lift task: names, assets and initial states
    lift_env.py        robosuite's Lift task as an environment
    env_factory.py     environment of any task
    contact_sheet.py   a suite's tasks as a list or as an image
    experts/           scripted experts: privileged state in, action out
    video.py           images -> mp4
    libero_writer.py   demonstrations -> LIBERO-format HDF5
    collect.py         experts -> demonstrations
    ros/               the simulator as a ROS 2 node

Import rule: nothing here imports m2distill_training; only ros/ imports rclpy; outside ros/, only errors and files of
the policy core are used. This file imports nothing, so that importing one module does not load the others.
"""
