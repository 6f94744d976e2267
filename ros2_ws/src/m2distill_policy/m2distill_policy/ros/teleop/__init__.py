"""Parts of the teleop node: the keyboard as an input device, and the motion in the format of the arm."""
