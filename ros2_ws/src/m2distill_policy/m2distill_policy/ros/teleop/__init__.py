"""Parts of the teleop node: the keyboard, the motion in the format of the arm, and orders to the recorder."""
