"""Damaged task files and incomplete assets folders are detected before LIBERO and MuJoCo read them."""

import shutil

import pytest

from m2distill_policy.errors import AssetError
from m2distill_sim.assets import find_assets
from m2distill_sim.builtin import SUITES
from m2distill_sim.libero_env import LiberoEnv
from m2distill_sim.suites import find_task, suites
from m2distill_sim.task_files import check_task_files, missing_files, read_bddl

TASK = find_task("libero_goal", 3)


def test_the_builtin_set_has_all_files_of_every_task(builtin):
    tasks = [task for name in SUITES for task in suites()[name]]
    assert len(tasks) == 40
    for task in tasks:
        assert read_bddl(task.bddl_file)["problem"][0].startswith("libero_")
        check_task_files(task.bddl_file, builtin)


def test_liberos_assets_have_all_files_of_every_task(real_assets):
    for task in (task for name in SUITES for task in suites()[name]):
        check_task_files(task.bddl_file, real_assets)


def _drop_last_parenthesis(text):
    return text.rstrip()[:-1]


@pytest.mark.parametrize(
    "damage, message",
    [
        (_drop_last_parenthesis, r"line 1: '\(' without '\)'"),
        (lambda text: text + ")", r"line \d+: '\)' without '\('"),
        (lambda text: "", r"expected one \(define"),
        (lambda text: text.replace("(define", "(defined", 1), r"expected one \(define"),
        (lambda text: text.replace("(:goal", "(:aim"), r"no \(:goal \.\.\.\)"),
        (lambda text: text.replace("(:objects", "(:objects akita (bowl)"), r"\(:objects \.\.\.\) expected names"),
        (lambda text: text.replace("plate_1 - plate\n", "plate_1 -\n"), r"\(:objects \.\.\.\) expected names"),
        (lambda text: "\xff", "not readable"),
    ],
)
def test_a_damaged_task_file_is_reported_with_its_line(builtin, tmp_path, damage, message):
    file = tmp_path / "task.bddl"
    file.write_text(damage(TASK.bddl_file.read_text()), encoding="latin-1")
    with pytest.raises(AssetError, match=f"task file {file} is .*{message}.*reinstall hf-libero"):
        check_task_files(file, builtin)


def test_comments_in_a_task_file_are_ignored(tmp_path, builtin):
    (tmp_path / "task.bddl").write_text(TASK.bddl_file.read_text().replace("(:goal", "; put it (there\n(:goal"))
    check_task_files(tmp_path / "task.bddl", builtin)


@pytest.fixture
def incomplete(builtin, tmp_path):
    shutil.copytree(builtin.path, tmp_path / "incomplete")
    return find_assets(tmp_path / "incomplete")


def test_all_missing_files_of_an_incomplete_folder_are_named(incomplete):
    lost = [
        "stable_scanned_objects/plate/plate.xml",
        "textures/light-gray-plaster.png",
        "articulated_objects/flat_stove.xml",
        "scenes/libero_tabletop_base_style.xml",
    ]
    for name in [*lost, "turbosquid_objects/moka_pot/moka_pot.xml"]:  # the last belongs to another suite
        (incomplete.path / name).unlink()
    (incomplete.path / "turbosquid_objects/wine_rack/wine_rack.xml").write_text("<mujoco><asset>")
    (incomplete.path / "turbosquid_objects/wine_bottle/wine_bottle.xml").write_bytes(b"")
    with pytest.raises(AssetError) as error:
        LiberoEnv("libero_goal", 3, incomplete)
    for name in [*lost, "wine_rack.xml (no element found: line 1", "turbosquid_objects/wine_bottle/wine_bottle.xml"]:
        assert name in str(error.value)
    assert "moka_pot" not in str(error.value) and "copy LIBERO's assets whole" in str(error.value)


def test_meshes_and_textures_of_a_model_are_checked(incomplete):
    model = incomplete.path / "stable_scanned_objects/plate/plate.xml"
    model.write_text(model.read_text().replace("<asset/>", '<asset><mesh name="m" file="visual/plate.msh"/></asset>'))
    assert missing_files(incomplete.path, "elsewhere", {"plate"}) == ["stable_scanned_objects/plate/visual/plate.msh"]
    (model.parent / "visual").mkdir()
    (model.parent / "visual/plate.msh").write_bytes(b"a mesh")
    assert missing_files(incomplete.path, "elsewhere", {"plate"}) == []


def test_a_long_list_of_missing_files_is_cut(incomplete):
    for name in (
        "scenes",
        "textures",
        "stable_hope_objects",
        "stable_scanned_objects",
        "articulated_objects",
        "turbosquid_objects",
    ):
        shutil.rmtree(incomplete.path / name)
    with pytest.raises(AssetError, match="and 3 more missing"):
        check_task_files(find_task("libero_10", 0).bddl_file, incomplete)
