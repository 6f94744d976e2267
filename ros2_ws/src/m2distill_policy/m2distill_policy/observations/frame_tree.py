"""Tree of coordinate frames, as TF publishes it: the newest transform of each frame to its parent.

The pose of one frame in another is computed from the newest transforms between them, without interpolation. It is as
old as the oldest of these, so an age limit on it covers every part of the chain.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from m2distill_policy.errors import MessageError
from m2distill_policy.observations.poses import Pose, compose, inverse

MAX_DEPTH = 100  # of a chain; a robot has fewer than 30 frames in a row


@dataclass(frozen=True)
class FramePose:
    """Pose of one frame in another."""

    pose: Pose  # its quaternion has unit length only if those of all transforms have
    stamp_ns: int  # of the oldest moving transform in it
    moving: frozenset[str]  # frames whose transforms are not static


@dataclass
class FrameTree:
    """Newest transform of each frame."""

    _edges: dict[str, tuple[str, Pose, int | None]] = field(default_factory=dict)  # child -> parent, pose, stamp

    def update(
        self,
        child: str,
        parent: str,
        position_m: Sequence[float],
        quat_xyzw: Sequence[float],
        stamp_ns: int | None,
    ) -> None:
        """Set the transform of a frame to its parent; without a stamp it is static."""
        pose = Pose(np.array(position_m, dtype=np.float64), np.array(quat_xyzw, dtype=np.float64))
        self._edges[_plain(child)] = (_plain(parent), pose, stamp_ns)

    def find(self, frame: str, base: str) -> FramePose:
        """Return the pose of `frame` in `base`.

        Raises:
            MessageError: The frames are not connected, or only by static transforms.
        """
        ups, downs = self._ancestors(_plain(frame)), self._ancestors(_plain(base))
        common = next((name for name in ups if name in downs), None)
        if common is None:
            known = [name for name in (frame, base) if not self._knows(_plain(name))]
            problem = f"nothing is known of {' and '.join(known)}" if known else "they are not connected"
            raise MessageError(f"no transform from {base} to {frame}: {problem}; check base_frame and ee_frame")
        up, down = ups[: ups.index(common)], downs[: downs.index(common)]
        stamps = {name: self._edges[name][2] for name in (*up, *down)}
        moving = {name: stamp for name, stamp in stamps.items() if stamp is not None}
        if not moving:
            raise MessageError(
                f"{frame} does not move against {base}: all transforms between them are static; check base_frame and "
                "ee_frame"
            )
        pose = compose(inverse(self._pose(down)), self._pose(up))
        return FramePose(pose, min(moving.values()), frozenset(moving))

    def _pose(self, chain: list[str]) -> Pose:
        """Return the pose of the first frame of a chain in the parent of the last one."""
        found = Pose(np.zeros(3), np.array([0.0, 0.0, 0.0, 1.0]))
        for name in chain:
            found = compose(self._edges[name][1], found)
        return found

    def _ancestors(self, frame: str) -> list[str]:
        """Return the frame, its parent, and so on up to the root."""
        found = [frame]
        while found[-1] in self._edges and len(found) <= MAX_DEPTH:
            parent = self._edges[found[-1]][0]
            if parent in found:
                raise MessageError(f"the frame {parent} is its own ancestor in TF; check who publishes it")
            found.append(parent)
        return found

    def _knows(self, frame: str) -> bool:
        return frame in self._edges or any(parent == frame for parent, _, _ in self._edges.values())


def _plain(frame: str) -> str:
    """Return a frame's name without the slash with which ROS 1 began it."""
    return frame.removeprefix("/")
