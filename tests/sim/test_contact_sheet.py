import cv2
import numpy as np
import pytest

from m2distill_sim.contact_sheet import VIEW_PX, contact_sheet, write_image
from m2distill_sim.suites import suites
from m2distill_training.cli import main


def test_tasks_are_listed_by_number_and_instruction(capsys):
    assert main.run(["tasks", "--suite", "libero_goal"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 11 and lines[7] == "7  turn on the stove" and lines[10].startswith("next: ")


def test_a_sheet_has_both_views_of_every_task_and_an_empty_cell_at_the_end(builtin, tmp_path):
    sheet = contact_sheet(suites()["libero_spatial"][:3], builtin)
    height, width = sheet.shape[0] // 2, sheet.shape[1] // 2
    assert width == 2 * VIEW_PX and height > VIEW_PX
    views = [
        sheet[row * height : row * height + VIEW_PX, column * VIEW_PX : (column + 1) * VIEW_PX]
        for row in (0, 1)
        for column in range(4)
    ]
    for number, view in enumerate(views):
        assert (view.std() > 20) == (number < 6), number
    assert np.abs(views[0].astype(int) - views[2]).mean() > 2  # another scene than its neighbour's
    write_image(tmp_path / "sheet.png", sheet)
    np.testing.assert_array_equal(cv2.imread(str(tmp_path / "sheet.png"))[:, :, ::-1], sheet)
    assert [path.name for path in tmp_path.iterdir()] == ["sheet.png"]


@pytest.mark.parametrize(
    "suite, out, message",
    [
        ("libero_gaol", None, "unknown suite 'libero_gaol'; did you mean 'libero_goal'"),
        ("libero_goal", "sheet.gif", "expected a name that ends in .jpg or .png"),
    ],
)
def test_tasks_that_cannot_be_drawn_are_rejected_in_one_line(tmp_path, suite, out, message, capsys):
    assert main.run(["tasks", "--suite", suite, *(["--out", str(tmp_path / out)] if out else [])]) == 2
    assert message in capsys.readouterr().err
