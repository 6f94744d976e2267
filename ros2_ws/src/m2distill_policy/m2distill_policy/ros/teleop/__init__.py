"""Input devices of the teleop node that are not ROS nodes of their own: the keyboard."""
