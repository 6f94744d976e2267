"""Faster ways to draw LIBERO's assets, which belong to the name of the assets."""

import numpy as np
import pytest

from m2distill_policy.errors import AssetError
from m2distill_sim.assets import DRAWINGS, find_assets
from m2distill_sim.env_factory import make_env
from m2distill_sim.mesh_clustering import CELL_M, cluster_visual_meshes
from m2distill_sim.suites import initial_states

PX = 96


@pytest.fixture
def copy(builtin, tmp_path):
    """A folder with the layout of LIBERO's assets, small enough for a digest."""
    (tmp_path / "set").symlink_to(builtin.path)
    return tmp_path / "set"


def test_the_ways_of_drawing_are_part_of_a_sources_name(copy, monkeypatch):
    plain, both = find_assets(copy), find_assets(f"{copy}:matte:clustered")
    assert (plain.drawings, both.drawings) == ((), DRAWINGS)
    assert (plain.label, both.label) == ("libero", "libero:clustered:matte")
    assert both.identity() == f"{plain.identity()}:clustered:matte"
    assert find_assets(both.name) == both and find_assets(plain.name) == plain
    monkeypatch.setenv("M2DISTILL_ASSETS", f"{copy}:matte")
    assert find_assets().label == "libero:matte"
    (copy.parent / "set:matte").symlink_to(copy)
    assert find_assets(f"{copy}:matte").label == "libero"  # a folder of this name


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("builtin:matte", "the built-in assets are drawn in one way; leave out :matte"),
        ("hub:clusterd", "assets hub:clusterd: unknown drawing 'clusterd'; did you mean 'clustered'"),
        ("/nowhere:matte", "assets folder /nowhere does not exist"),
    ],
)
def test_a_way_that_does_not_exist_is_rejected(name, message):
    with pytest.raises(AssetError) as error:
        find_assets(name)
    assert str(error.value).startswith(message)


def test_clustering_changes_only_meshes_that_do_not_collide(builtin):
    """The arm's meshes, which the built-in style hides, are the same with all assets."""
    with make_env("libero_object", 0, builtin) as env:
        model = env.model
        visual = np.array(["_vis" in model.mesh(i).name for i in range(model.nmesh)])
        number, vertices, faces = model.mesh_facenum.copy(), model.mesh_vert.copy(), model.mesh_face.copy()
        cluster_visual_meshes(model)
        left = model.mesh_facenum / number
        assert visual.sum() > 30 and left[visual].mean() < 0.7 and left[visual].min() > 0.02
        assert (left[~visual] == 1).all()
        moved = np.abs(model.mesh_vert - vertices).max(axis=1)
        assert 0 < moved.max() < CELL_M
        for mesh in np.flatnonzero(~visual):
            its = slice(model.mesh_faceadr[mesh], model.mesh_faceadr[mesh] + number[mesh])
            np.testing.assert_array_equal(model.mesh_face[its], faces[its])
            its = slice(model.mesh_vertadr[mesh], model.mesh_vertadr[mesh] + model.mesh_vertnum[mesh])
            assert moved[its].max() == 0


@pytest.mark.slow
def test_liberos_scenes_are_drawn_with_fewer_faces_and_without_the_reflection(real_assets):
    """Mean differences in grey levels, by camera: of the clustered images, and of these without a reflection."""
    state, cameras, seen = initial_states("libero_goal", 0)[0], {"agentview": (PX, PX), "wrist": (PX, PX)}, {}
    for name in ("", ":clustered", ":clustered:matte"):
        with make_env("libero_goal", 0, find_assets(f"{real_assets.path}{name}"), cameras) as env:
            seen[name] = env.reset(state).images, env.state(), env.model.mesh_facenum.sum()
    for _, after, faces in list(seen.values())[1:]:
        np.testing.assert_array_equal(after, seen[""][1])
        assert faces < 0.7 * seen[""][2]
    images = {name: {camera: image.astype(int) for camera, image in each[0].items()} for name, each in seen.items()}
    for camera in cameras:
        assert 0 < np.abs(images[":clustered"][camera] - images[""][camera]).mean() < 1.5
    reflection = np.abs(images[":clustered:matte"]["agentview"] - images[":clustered"]["agentview"])
    assert 1 < reflection.mean() < 5
