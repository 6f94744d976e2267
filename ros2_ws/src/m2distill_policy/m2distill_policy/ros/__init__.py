"""ROS 2 part of the policy package. Only folders named `ros` import rclpy.

`nodes` has the executables, `policy` and `recorder` and `teleop` their parts, `common` what nodes share, and `clients`
the programs that call nodes.
"""
