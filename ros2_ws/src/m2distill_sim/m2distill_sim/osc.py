"""Operational space controller (OSC_POSE) of robosuite's Panda, bit for bit, with fewer calls per substep.

A control step has 25 substeps. robosuite's own controller looks up names, allocates arrays and updates statistics in
each of them. Here ids and arrays are found once per episode, and only what the torques depend on is computed. The
functions with matrices are robosuite's own, on arrays of the same memory layout, because rounding depends on it.
Method: Khatib (1987); formulas: robosuite 1.4.0, controllers/osc.py and robots/single_arm.py.
"""

import numpy as np

from m2distill_sim.renderer import mujoco

SIGNS = np.array([-1.0, 1.0])  # of the fingers' targets for a closing command


class OscPose:
    """Controller of the arm and its two fingers, from one reset of robosuite's environment to the next."""

    def __init__(self, robot, model: mujoco.MjModel, data: mujoco.MjData):
        """Find the robot's parts; `data` must be up to date, as after mj_forward.

        Args:
            robot: robosuite's robot after a reset; its controller has the gains and the goal.
            model: MuJoCo model.
            data: MuJoCo data.
        """
        from robosuite.utils.control_utils import nullspace_torques, opspace_matrices, orientation_error

        self._functions = orientation_error, opspace_matrices, nullspace_torques
        self._osc, self._gripper = robot.controller, robot.gripper
        self._model, self._data = model, data
        self._site = model.site(self._osc.eef_name).id
        self._position, self._rotation = data.site_xpos[self._site], data.site_xmat[self._site].reshape(3, 3)
        self._dofs = _range(self._osc.qvel_index)
        self._qpos, self._qvel = data.qpos[_range(self._osc.qpos_index)], data.qvel[self._dofs]
        self._bias, self._torques = data.qfrc_bias[self._dofs], data.ctrl[_range(robot._ref_joint_actuator_indexes)]
        self._low, self._high = robot.torque_limits
        fingers = _range([model.actuator(name).id for name in self._gripper.actuators])
        low, high = model.actuator_ctrlrange[fingers].T
        self._middle, self._half = (0.5 * (high + low)).tolist(), (0.5 * (high - low)).tolist()
        self._targets = data.ctrl[fingers]
        self._inertia_NN = np.empty((model.nv, model.nv))
        self._jacobians_3N = np.empty((3, model.nv)), np.empty((3, model.nv))
        dofs = len(self._qvel)
        self._mass = np.empty((dofs, dofs), order="F")
        self._J = np.empty((6, dofs), order="F")
        self._J_position, self._J_rotation = np.empty((3, dofs), order="F"), np.empty((3, dofs), order="F")
        self._all_qvel, self._qM = data.qvel, data.qM
        self._error, self._velocity, self._wrench = np.empty(6), np.empty(6), np.empty(6)
        self._is_current = False
        self._update()

    def set_goal(self, action: np.ndarray) -> None:
        """Set the goal of a control step, after the first mj_step1 of it; `action` as in ArmEnv.step."""
        self._update()
        osc = self._osc
        osc.ee_pos, osc.ee_ori_mat, osc.new_update = self._position, self._rotation, False
        osc.set_goal(action[:6])
        self._finger_step = (SIGNS * self._gripper.speed * np.sign(action[6:])).tolist()
        self._fingers = np.broadcast_to(self._gripper.current_action, 2).tolist()

    def apply(self) -> None:
        """Set the controls of one substep, after mj_step1."""
        self._update()
        self._is_current = False
        osc = self._osc
        orientation_error, opspace_matrices, nullspace_torques = self._functions
        error, wrench = self._error, self._wrench
        np.subtract(osc.goal_pos, self._position, out=error[:3])
        error[3:] = orientation_error(osc.goal_ori, self._rotation)
        desired = error * osc.kp - self._velocity * osc.kd
        _, for_position, for_rotation, nullspace = opspace_matrices(
            self._mass, self._J, self._J_position, self._J_rotation
        )
        np.dot(for_position, desired[:3], out=wrench[:3])
        np.dot(for_rotation, desired[3:], out=wrench[3:])
        torques = np.dot(self._J.T, wrench)
        torques += self._bias
        torques += nullspace_torques(self._mass, nullspace, osc.initial_joint, self._qpos, self._qvel)
        np.minimum(np.maximum(torques, self._low), self._high, out=self._torques)
        for finger, step in enumerate(self._finger_step):
            moved = min(max(self._fingers[finger] + step, -1.0), 1.0)
            self._fingers[finger] = moved
            self._targets[finger] = self._middle[finger] + self._half[finger] * moved
        self._gripper.current_action = np.array(self._fingers)

    def _update(self) -> None:
        """Compute velocities, Jacobians and the mass matrix of the current state, once per substep."""
        if self._is_current:
            return
        self._is_current = True
        linear, angular = self._jacobians_3N
        mujoco.mj_jacSite(self._model, self._data, linear, angular, self._site)
        np.dot(linear, self._all_qvel, out=self._velocity[:3])
        np.dot(angular, self._all_qvel, out=self._velocity[3:])
        self._J_position[:], self._J_rotation[:] = linear[:, self._dofs], angular[:, self._dofs]
        self._J[:3], self._J[3:] = self._J_position, self._J_rotation
        mujoco.mj_fullM(self._model, self._inertia_NN, self._qM)
        self._mass[:] = self._inertia_NN[self._dofs, self._dofs]


def _range(indexes) -> slice:
    """Return the slice of consecutive indexes, with which an array gives a view."""
    first = int(indexes[0])
    if list(indexes) != list(range(first, first + len(indexes))):
        raise ValueError(f"indexes {list(indexes)} are not consecutive")
    return slice(first, first + len(indexes))
