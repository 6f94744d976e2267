"""Safety: who may move an arm, which commands may reach it, and the description of an arm.

    authority.py          who may move the arm: the table of every event against every state
    limits.py             SafetyLimits, and CommandGuard, which applies them to every command
    joint_limits.py       joint limits by joint name
    output_parameters.py  topics, frame, command format and gripper units of an arm
    arm_presets.py        arm files in YAML: the packaged presets of config/arms/ and the user's own

Invariant: CommandGuard is the last code to change a command before it leaves the core, and no command that it returns
exceeds a limit or is not finite.
"""
