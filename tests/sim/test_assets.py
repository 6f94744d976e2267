import shutil

import numpy as np
import pytest

from m2distill_policy.errors import AssetError
from m2distill_sim.assets import cache_folder, find_assets, write_folder
from m2distill_sim.builtin import builtin_files
from m2distill_sim.experts.pick_place import _corners
from m2distill_sim.libero_env import LiberoEnv
from m2distill_sim.suites import initial_states


def test_the_builtin_set_is_written_whole_into_the_cache(builtin):
    written = {str(path.relative_to(builtin.path)): path.read_bytes() for path in builtin.path.rglob("*")
               if path.is_file()}
    assert written == builtin_files()
    assert builtin.path.is_relative_to(cache_folder())
    assert builtin.path.name == builtin.label == find_assets("builtin").label


def test_a_folder_written_twice_keeps_the_first_and_leaves_no_rest(tmp_path):
    write_folder(tmp_path / "set", {"a/b": b"1"})
    write_folder(tmp_path / "set", {"a/b": b"2"})
    assert (tmp_path / "set/a/b").read_bytes() == b"1"
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_a_given_path_comes_before_the_environment_and_that_before_the_builtin_set(builtin, tmp_path, monkeypatch):
    shutil.copytree(builtin.path, tmp_path / "given")
    shutil.copytree(builtin.path, tmp_path / "named")
    monkeypatch.setenv("M2DISTILL_ASSETS", str(tmp_path / "named"))
    assert find_assets(tmp_path / "given").path == tmp_path / "given"
    assert find_assets().path == tmp_path / "named"
    monkeypatch.delenv("M2DISTILL_ASSETS")
    assert find_assets().kind in ("installed", "builtin")


def test_a_missing_folder_and_a_folder_without_scenes_are_refused(tmp_path):
    with pytest.raises(AssetError, match="does not exist"):
        find_assets(tmp_path / "nowhere")
    (tmp_path / "scenes").mkdir()
    with pytest.raises(AssetError, match="no textures, stable_hope_objects, stable_scanned_objects"):
        find_assets(tmp_path)


def test_the_builtin_set_says_which_suites_it_covers(builtin):
    with pytest.raises(AssetError, match="cover libero_object, libero_goal, libero_spatial, libero_10, not libero_90"):
        LiberoEnv("libero_90", 0, builtin)


@pytest.mark.parametrize("task", [0, 1, 3, 4, 7, 8, 9])
def test_builtin_objects_agree_with_liberos(real_assets, builtin, task):
    """The same joints and bodies in the same order, so that states apply; sites and sizes, so that predicates do."""
    ours, theirs = (LiberoEnv("libero_object", task, assets) for assets in (builtin, real_assets))
    for kind in ("nbody", "njnt", "nq", "nv", "nsite"):
        assert getattr(ours.model, kind) == getattr(theirs.model, kind), kind
    for index in range(ours.model.nbody):
        assert ours.model.body(index).name == theirs.model.body(index).name
    for index in range(ours.model.njnt):
        assert ours.model.joint(index).name == theirs.model.joint(index).name
        assert ours.model.jnt_qposadr[index] == theirs.model.jnt_qposadr[index]
    for index in range(ours.model.nsite):
        assert ours.model.site(index).name == theirs.model.site(index).name
        np.testing.assert_allclose(ours.model.site_pos[index], theirs.model.site_pos[index], atol=1e-6)
        np.testing.assert_allclose(ours.model.site_size[index], theirs.model.site_size[index], atol=1e-6)
    for name in ours.object_names:
        mine, real = _corners(ours, name), _corners(theirs, name)
        np.testing.assert_allclose(mine.min(axis=0), real.min(axis=0), atol=0.006, err_msg=name)
        np.testing.assert_allclose(mine.max(axis=0), real.max(axis=0), atol=0.006, err_msg=name)
    resting = []
    for env in (ours, theirs):
        env.reset(initial_states("libero_object", task)[0], settle_steps=30)
        resting.append({name: env.object_pose(name)[0] for name in env.object_names})
    for name in ours.object_names:
        np.testing.assert_allclose(resting[0][name], resting[1][name], atol=0.006, err_msg=name)
