"""Parts of the policy node.

- `controller`: connects the parts below from activation to deactivation
- `inputs`, `outputs`, `gripper`: sensor topics and command topics
- `hand_frames`, `part_sources`: the hand's pose from TF, and joints or frames with several publishers
- `control_loop`, `run_state`, `watchdog`: when to act, when to hold, and the state of a run
- `instruction_handler`, `execute_server`: instructions from the topic, the services and the action
- `status_publisher`, `run_status`: ~/status, ~/action and /diagnostics
- `checkpoint_reloader`: replacement of the checkpoint while the node runs
"""
