"""ROS 2 part of the simulator: the node `sim`, its sensor topics, and the expert that drives its arm."""
