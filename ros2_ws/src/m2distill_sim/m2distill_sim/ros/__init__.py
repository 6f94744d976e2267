"""ROS 2 part of the simulator: the node `sim` and the expert that drives its arm."""
