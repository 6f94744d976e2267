"""Parts of the policy node.

- `controller`: connects the parts below from activation to deactivation
- `inputs`, `outputs`, `gripper`: sensor topics and command topics
- `control_loop`, `run_state`, `watchdog`: when to act, when to hold, and the state of a run
- `instruction_handler`, `execute_server`: instructions from the topic, the services and the action
- `status_publisher`, `run_status`: ~/status, ~/action and /diagnostics
- `checkpoint_reloader`: replacement of the checkpoint while the node runs
"""
