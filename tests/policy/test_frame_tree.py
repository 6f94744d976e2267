"""Poses from a tree of frames, against 4x4 matrices, and every way in which there is none."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from m2distill_policy.errors import MessageError
from m2distill_policy.observations.frame_tree import FrameTree
from m2distill_policy.observations.poses import Pose, compose, inverse

IDENTITY = ((0.0, 0.0, 0.0), (0.0, 0.0, 0.0, 1.0))


def drawn(rng: np.random.Generator) -> tuple[tuple, tuple]:
    return tuple(rng.normal(size=3)), tuple(Rotation.random(random_state=rng).as_quat())


def matrix(position, quat) -> np.ndarray:
    found = np.eye(4)
    found[:3, :3], found[:3, 3] = Rotation.from_quat(quat).as_matrix(), position
    return found


def test_a_pose_is_the_product_of_the_transforms_between_two_frames():
    """base is below the common ancestor, too: world -> table -> base, world -> rail -> arm -> hand."""
    rng = np.random.default_rng(0)
    tree, edges = FrameTree(), {}
    parents = {"table": "world", "base": "table", "rail": "world", "arm": "rail", "hand": "arm", "camera": "hand"}
    stamps = {"rail": 7, "arm": 5, "hand": 9, "camera": 1}
    for child, parent in parents.items():
        edges[child] = drawn(rng)
        tree.update(child, f"/{parent}", *edges[child], stamps.get(child))
    m = {child: matrix(*edge) for child, edge in edges.items()}
    expected = np.linalg.inv(m["table"] @ m["base"]) @ m["rail"] @ m["arm"] @ m["hand"]
    found = tree.find("hand", "/base")
    np.testing.assert_allclose(matrix(*found.pose), expected, atol=1e-12)
    assert (found.stamp_ns, found.moving) == (5, {"rail", "arm", "hand"})
    np.testing.assert_allclose(matrix(*tree.find("hand", "rail").pose), m["arm"] @ m["hand"], atol=1e-12)
    np.testing.assert_allclose(matrix(*tree.find("rail", "hand").pose), np.linalg.inv(m["arm"] @ m["hand"]), atol=1e-12)
    tree.update("hand", "arm", *drawn(rng), 11)
    assert tree.find("hand", "arm").stamp_ns == 11


def test_a_pose_times_its_inverse_is_nothing():
    pose = Pose(*map(np.array, drawn(np.random.default_rng(1))))
    for product in (compose(pose, inverse(pose)), compose(inverse(pose), pose)):
        np.testing.assert_allclose(matrix(*product), np.eye(4), atol=1e-12)


@pytest.mark.parametrize(
    ("edges", "message"),
    [
        ({}, "no transform from base to hand: nothing is known of hand and base; check base_frame and ee_frame"),
        ({"hand": ("arm", 1)}, "nothing is known of base"),
        ({"hand": ("arm", 1), "base": ("world", None)}, "no transform from base to hand: they are not connected"),
        ({"hand": ("arm", None), "arm": ("base", None)}, "hand does not move against base: all transforms between"),
        ({"hand": ("arm", 1), "arm": ("hand", 1)}, "the frame hand is its own ancestor in TF"),
    ],
)
def test_frames_without_a_pose_are_reported(edges, message):
    tree = FrameTree()
    for child, (parent, stamp_ns) in edges.items():
        tree.update(child, parent, *IDENTITY, stamp_ns)
    with pytest.raises(MessageError) as error:
        tree.find("hand", "base")
    assert message in str(error.value)


def test_a_quaternion_that_is_no_rotation_is_visible_in_the_product():
    """The session rejects it: a quaternion of the pose without unit length."""
    tree = FrameTree()
    tree.update("arm", "base", (0.0, 0.0, 0.0), (0.0, 0.0, 0.0, 0.0), 1)
    tree.update("hand", "arm", *IDENTITY, 1)
    assert np.linalg.norm(tree.find("hand", "base").pose.quat_xyzw) == 0


names = st.sampled_from(["base", "hand", "arm", "/arm", "rail", ""])
numbers = st.one_of(st.floats(-1, 1), st.floats())


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.tuples(
            names, names, st.tuples(numbers, numbers, numbers), st.tuples(*[numbers] * 4), st.integers() | st.none()
        )
    )
)
@pytest.mark.filterwarnings("ignore:overflow|invalid value:RuntimeWarning")
def test_any_transforms_give_a_pose_or_a_reason(edges):
    tree = FrameTree()
    for child, parent, position, quat, stamp_ns in edges:
        tree.update(child, parent, position, quat, stamp_ns)
        try:
            found = tree.find("hand", "base")
        except MessageError as error:
            assert "\n" not in str(error)
        else:
            assert found.pose.position_m.shape == (3,) and found.pose.quat_xyzw.shape == (4,) and found.moving
