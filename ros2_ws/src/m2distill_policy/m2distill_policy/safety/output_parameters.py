"""Settings of the connection to an arm: topics, frame, command format and gripper units.

Together with `SafetyLimits` they are what an arm file can set. The policy node declares each as a parameter.
"""

from dataclasses import dataclass

from m2distill_policy.utils.parameters import parameter


@dataclass(frozen=True)
class OutputParameters:
    """Connection to the arm. The policy node reads it when it is configured."""

    output: str = parameter(
        "twist",
        "command format: twist publishes TwistStamped on twist_cmd, as MoveIt Servo requires; pose publishes "
        "PoseStamped on target_pose, for a Cartesian impedance controller; array publishes Float64MultiArray on "
        "velocity_cmd",
        choices=("twist", "pose", "array"),
    )
    dry_run: bool = parameter(False, "publish no command topics, only ~/action, ~/status and /diagnostics")
    frame_id: str = parameter("", "frame of the commands; empty: the checkpoint's")
    base_frame: str = parameter(
        "", "frame that the hand's pose is in, at the place of frame_id if it has another name; empty: frame_id"
    )
    ee_frame: str = parameter(
        "",
        "frame of the hand in TF, for example panda_hand_tcp: its pose in base_frame replaces the topic ee_pose; "
        "empty: ee_pose is required",
    )
    servo_service: str = parameter(
        "",
        "service of MoveIt Servo (moveit_msgs/ServoCommandType) that is called so that Servo accepts the commands, for "
        "example servo_node/switch_command_type; empty: none",
    )
    command_stamp: str = parameter(
        "observation",
        "stamp of a command: the stamp of its observation, or the time of sending",
        choices=("observation", "sending"),
    )
    success_topic: str = parameter(
        "success", "std_msgs/Bool topic that ends a goal of ~/execute with success", read_only=True
    )
    gripper_output: str = parameter(
        "width",
        "gripper command: width publishes Float64 on gripper_cmd, in m; action sends goals of "
        "control_msgs/GripperCommand, and parallel_action of control_msgs/ParallelGripperCommand, to gripper_action; "
        "none: the arm has no gripper",
        choices=("width", "action", "parallel_action", "none"),
    )
    gripper_action_scale: float = parameter(
        1.0, "position of a gripper's goal = offset + scale x opening in m", at_least=-1000.0, at_most=1000.0
    )
    gripper_action_offset: float = parameter(
        0.0, "position of a gripper's goal at zero opening", at_least=-1000.0, at_most=1000.0
    )
    gripper_joint: str = parameter("", "joint that a goal of ParallelGripperCommand names; empty: none")
    gripper_effort_n: float = parameter(20.0, "maximum effort of a gripper's goal, in N", at_least=0.0, at_most=1000.0)
    gripper_hysteresis_m: float = parameter(
        0.005,
        "minimum difference from the opening of the last goal that leads to a new goal, in m",
        at_least=0.0,
        at_most=0.2,
    )
    gripper_dwell_s: float = parameter(
        0.25,
        "time for which commands must differ from the last goal, in one direction, before a new goal is sent, in s",
        at_least=0.0,
        at_most=5.0,
    )
