"""Observations: from sensor data of any camera and joint driver to the model's input arrays.

    image_decoding.py  encoded image bytes -> (H, W, 3) uint8 RGB
    observation.py     images at the model's size and orientation
    joint_merger.py    joints in the model's order, merged from messages with all or a part of them
    input_stream.py    newest value of one input, with its age limit
    poses.py           poses of the hand in the base frame
    frame_tree.py      pose of one frame in another, from the transforms of TF

Invariant: training and serving read images and joints through the same functions. Nothing here has a clock; time is an
argument.
"""
