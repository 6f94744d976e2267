"""ROS clients of the benchmarks: a fake robot, a latency probe and a soak client."""
