"""Description and start of the system. Nothing here imports ROS or torch.

- `parameters`: the nodes' parameters, the one source of names, defaults and descriptions
- `launch_config`: options of the launch files and of `m2distill run`, derived from the parameters
- `system`: which nodes run with which parameters; the command `m2distill run`
- `preflight`: checks of the environment before ROS 2 starts
- `processes`: nodes as plain processes
- `client_cli`: command lines of `m2distill instruct` and `m2distill service`
- `dashboard_cli`: the command `m2distill dashboard`
"""
