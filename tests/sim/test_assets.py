import shutil

import pytest

from m2distill_policy.errors import AssetError
from m2distill_sim.assets import cache_folder, find_assets, write_folder
from m2distill_sim.builtin import builtin_files
from m2distill_sim.libero_env import LiberoEnv


def test_the_builtin_set_is_written_completely_to_the_cache(builtin):
    written = {
        str(path.relative_to(builtin.path)): path.read_bytes() for path in builtin.path.rglob("*") if path.is_file()
    }
    assert written == builtin_files()
    assert builtin.path.is_relative_to(cache_folder())
    assert builtin.path.name == builtin.label == find_assets("builtin").label


def test_a_folder_written_twice_keeps_the_first_and_leaves_no_temporary_files(tmp_path):
    write_folder(tmp_path / "set", {"a/b": b"1"})
    write_folder(tmp_path / "set", {"a/b": b"2"})
    assert (tmp_path / "set/a/b").read_bytes() == b"1"
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_a_given_path_precedes_the_environment_variable_and_the_builtin_set(builtin, tmp_path, monkeypatch):
    shutil.copytree(builtin.path, tmp_path / "given")
    shutil.copytree(builtin.path, tmp_path / "named")
    monkeypatch.setenv("M2DISTILL_ASSETS", str(tmp_path / "named"))
    assert find_assets(tmp_path / "given").path == tmp_path / "given"
    assert find_assets().path == tmp_path / "named"
    monkeypatch.delenv("M2DISTILL_ASSETS")
    assert find_assets().kind in ("installed", "builtin")


def test_a_missing_folder_and_a_folder_without_scenes_are_rejected(tmp_path):
    with pytest.raises(AssetError, match="does not exist"):
        find_assets(tmp_path / "nowhere")
    (tmp_path / "scenes").mkdir()
    with pytest.raises(AssetError, match="no textures, stable_hope_objects, stable_scanned_objects"):
        find_assets(tmp_path)


def test_the_builtin_set_reports_which_suites_it_covers(builtin):
    with pytest.raises(AssetError, match="cover libero_object, libero_goal, libero_spatial, libero_10, not libero_90"):
        LiberoEnv("libero_90", 0, builtin)
