"""LIBERO as a robot: simulation, assets, scripted experts and demonstration collection.

Map (read in this order):
    suites.py          which suites and tasks exist, their instructions, their initial states, which are held out
    assets.py          where 3-D assets come from: a given folder, an installation, the hub, or the built-in set
    builtin/           the built-in set: LIBERO's objects in boxes, cylinders and flat colours, written as MJCF
    task_files.py      what a task needs from disk, checked before anything loads
    renderer.py        offscreen images of a MuJoCo model, upright
    arm_env.py         a robosuite task as plain arrays: reset, step, render, success
    libero_env.py      LIBERO's tasks; the only import of LIBERO
    lift.py lift_env.py  robosuite's own Lift, of which there are human demonstrations
    environments.py    any task as an environment
    contact_sheet.py   a suite's tasks as a list or an image
    experts/           scripted experts (privileged state in, action out)
    video.py           images -> mp4
    demo_file.py       demonstrations -> LIBERO-format HDF5
    collect.py         experts -> demonstrations
    ros/               the thin ROS shell: the simulator as a node

Import rule: nothing here imports m2distill_training; only ros/ imports rclpy; of the policy core, only errors
and files are used outside ros/.

This file imports nothing, so that importing one module never pays for another.
"""
