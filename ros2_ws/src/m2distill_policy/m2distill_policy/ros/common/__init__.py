"""Code that several nodes share.

- `process`: main functions of nodes and clients
- `managed_entities`, `background`: entities of a lifecycle node, and slow work beside its callbacks
- `parameters`: ROS parameters from dataclasses
- `conversions`: messages to and from numpy arrays
- `cv_bridge_decoding`: images by cv_bridge, if it gives the same numbers
- `servo`: MoveIt Servo's command type
- `diagnostics`, `topic_checks`: rates of inputs, and publishers that are missing or incompatible
- `launch_description`: launch files; the only module that requires ROS 2's launch package
"""
