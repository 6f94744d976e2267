"""Looking at demonstrations and choosing among them: rules, page, choices, and the new sets."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import h5py
import numpy as np
import pytest
from bag_writer import write_bag

from m2distill_policy.errors import DataError
from m2distill_policy.spec import libero_spec
from m2distill_training.cli import main
from m2distill_training.data.lerobot.lerobot_export import export_lerobot
from m2distill_training.data.review.choices import Choices
from m2distill_training.data.review.edit import edit_set, merge_sets, without_idle_ends
from m2distill_training.data.review.episodes import open_set
from m2distill_training.data.review.outliers import Curves, curves_of, flags_of, flags_of_set, robust_z
from m2distill_training.data.review.page import write_page

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
NASTY = '"><img src=x onerror="document.title=1"><b>pick up</b>'


def curves(**changes) -> Curves:
    """Forty steps that move, none of them unusual."""
    steps = 40
    action = np.zeros((steps, 7), np.float32)
    action[:, 0] = 0.3
    values = {"joint": np.zeros((steps, 7)), "gripper": np.zeros((steps, 2)), "action": action}
    return Curves(**{"steps": steps, "frozen": np.zeros(steps, int), **values, **changes})


def test_each_rule_flags_its_fault_alone():
    assert flags_of(curves()) == []
    still = curves().action.copy()
    still[:12, 0] = 0
    assert flags_of(curves(action=still)) == ["idle: the first 12 steps command no motion"]
    assert flags_of(curves(action=still[::-1])) == ["idle: the last 12 steps command no motion"]
    full = curves().action.copy()
    full[:11, 2] = -1
    assert flags_of(curves(action=full)) == ["saturated: 28% of the steps command full scale"]
    leap = curves().joint.copy()
    leap[7:, 3] = 0.5
    assert flags_of(curves(joint=leap)) == ["jump: a joint moves 0.50 rad within step 7"]
    frozen = np.zeros(40, int)
    frozen[20:27] = range(1, 8)
    assert flags_of(curves(frozen=frozen)) == ["frozen: a camera repeats an image for 7 steps, until step 26"]


def test_the_robust_z_score_is_that_of_its_source():
    """Median 3, deviations 2 1 0 1 97: their median is 1, so the last value has 0.6745 * 97."""
    assert robust_z([1, 2, 3, 4, 100])[-1] == pytest.approx(0.6745 * 97)
    assert robust_z([5, 5, 5, 5, 10])[-1] == pytest.approx(5 / (1.2533 * 1.0))  # mean deviation 1
    assert list(robust_z([7, 7])) == [0, 0] and len(robust_z([])) == 0


def test_lengths_and_wordings_are_judged_within_the_set(libero_file):
    path = libero_file("pick_up_the_milk", instruction="pick up the cream cheese")
    rows = [(f"demo_{i}", "pick up the milk", 100 + i) for i in range(6)]
    rows += [("demo_6", "pick up the mlik", 103), ("demo_7", "pick up the milk", 300)]
    found = flags_of_set(open_set(path.parent / path.name), rows)
    assert [name for name, flags in found.items() if flags] == ["demo_6", "demo_7"]
    assert found["demo_6"] == ["wording: the instruction is like the more frequent 'pick up the milk'"]
    assert found["demo_7"][0].startswith("length: 300 steps, the median is 103 ")
    own = flags_of_set(open_set(path), [("demo_0", "pick up the cream cheese", 9)])
    assert own["demo_0"] == ["wording: the instruction is not that of the file's name, pick_up_the_milk_demo.hdf5"]


def content(group: h5py.Group) -> dict:
    found = {}
    group.visititems(lambda name, x: found.update({name: x[()]}) if isinstance(x, h5py.Dataset) else None)
    return found


def test_drop_and_trim_write_a_new_file_and_leave_the_old_one(libero_file, tmp_path):
    path = libero_file(demos=4, steps=9)
    with h5py.File(path, "a") as file:
        for demo in file["data"].values():
            steps = len(demo["actions"])
            demo["states"] = np.arange(steps * 2.0).reshape(steps, 2)
            demo["dones"] = np.eye(steps, dtype=np.uint8)[-1]
            demo.attrs["init_state"] = demo["states"][0]
            demo.attrs["model_file"] = "<mujoco/>"
    before = path.read_bytes()
    out = tmp_path / "new.hdf5"
    assert edit_set(open_set(path), Choices(frozenset({"demo_1"}), {"demo_2": (3, 7)}), out) == 3
    assert path.read_bytes() == before
    with h5py.File(path) as old, h5py.File(out) as new:
        assert list(new["data"]) == ["demo_0", "demo_1", "demo_2"]
        assert new["data"].attrs["num_demos"] == 3 and new["data"].attrs["total"] == 9 + 5 + 12
        for mine, its, rows in (("demo_0", "demo_0", slice(9)), ("demo_1", "demo_2", slice(3, 8))):
            expected = {name: x[rows] for name, x in content(old["data"][its]).items()}
            expected["dones"][-1] = 1
            found = content(new["data"][mine])
            assert found.keys() == expected.keys()
            assert all(np.array_equal(found[name], x) for name, x in expected.items())
        cut = new["data/demo_1"].attrs
        assert list(cut["init_state"]) == [6, 7] and cut["model_file"] == "<mujoco/>" and cut["num_samples"] == 5
        assert cut["source"] == f"{path.name}: demo_2, steps 3 to 7 of 11"
    assert [each.steps for each in open_set(out).contents()] == [9, 5, 12]
    with pytest.raises(DataError, match=r"new.hdf5 exists; name a new"):
        edit_set(open_set(path), Choices(), out)


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        (Choices(frozenset({"demo_9"})), "unknown episode 'demo_9'"),
        (Choices(keep={"demo_0": (3, 9)}), "demo_0 is to keep the steps 3 to 9, it has the steps 0 to 8"),
        (Choices(frozenset({"demo_0", "demo_1", "demo_2"})), "all 3 episodes would be dropped"),
    ],
)
def test_choices_that_do_not_fit_are_rejected_and_nothing_is_written(libero_file, tmp_path, choices, message):
    path = libero_file()
    with pytest.raises(DataError, match=message):
        edit_set(open_set(path), choices, tmp_path / "new.hdf5")
    assert list(tmp_path.iterdir()) == [path]


def test_an_error_in_the_middle_leaves_no_file(libero_file, tmp_path):
    one, other = libero_file("one"), libero_file("other", size_px=32)
    with pytest.raises(DataError, match=r"images of demo_0, agentview_rgb, are \(32, 32, 3\)"):
        merge_sets([open_set(one), open_set(other)], tmp_path / "new.hdf5")
    assert sorted(tmp_path.iterdir()) == sorted([one, other])


def test_files_of_one_task_are_merged(libero_file, tmp_path):
    one, other = libero_file("one"), libero_file("other", demos=2, seed=1)
    assert merge_sets([open_set(one), open_set(other)], tmp_path / "new.hdf5") == 5
    assert len(open_set(tmp_path / "new.hdf5").contents()) == 5
    third = libero_file("third", instruction="pick up the ketchup")
    with pytest.raises(DataError, match="'pick up the milk', 'pick up the ketchup', and a file holds one task"):
        merge_sets([open_set(one), open_set(third)], tmp_path / "both.hdf5")
    merge_sets([open_set(one), open_set(third)], tmp_path / "both.hdf5", "pick up the milk")
    assert {each.instruction for each in open_set(tmp_path / "both.hdf5").contents()} == {"pick up the milk"}
    with h5py.File(other, "a") as file:
        file["data"].attrs["obs_after_action"] = False
    with pytest.raises(DataError, match="obs_after_action is False, in .* it is None"):
        merge_sets([open_set(one), open_set(other)], tmp_path / "mixed.hdf5")


def test_a_lerobot_dataset_is_trimmed_dropped_and_merged(libero_file, tmp_path):
    export_lerobot([libero_file(demos=3)], tmp_path / "set", lossless=True)
    old = open_set(tmp_path / "set")
    names = [each.name for each in old.contents()]
    edit_set(old, Choices(frozenset(names[:1]), {names[1]: (2, 5)}), tmp_path / "new", lossless=True)
    new = open_set(tmp_path / "new")
    assert [each.steps for each in new.contents()] == [4, old.contents()[2].steps]
    before, after = list(old.episodes())[1].demo, next(iter(new.episodes())).demo
    assert np.array_equal(after.action, before.action[2:6]) and np.array_equal(after.joint, before.joint[2:6])
    assert all(np.array_equal(after.images[camera], before.images[camera][2:6]) for camera in before.images)
    assert merge_sets([new, new], tmp_path / "both") == 4
    assert len(open_set(tmp_path / "both").contents()) == 4


def test_bags_are_read_by_the_import_and_copied_whole(tmp_path):
    labels = {
        "instruction": "pick up the soup",
        "success": "true",
        "spec": libero_spec(64, text_encoder="none", text_width=8).to_json(),
    }
    for name in ("one", "two"):
        write_bag(tmp_path / "episodes" / name, labels=labels)
    write_bag(tmp_path / "episodes" / "zero", labels={**labels, "success": "false"})
    bags = open_set(tmp_path / "episodes")
    assert next((x.name, x.instruction, x.steps) for x in bags.contents()) == ("one", "pick up the soup", None)
    found = {episode.name: episode for episode in bags.episodes()}
    assert found["one"].demo is not None and "Hz: " in found["one"].notes
    assert found["zero"].rejected == "it is labelled a failure"
    assert "zero" in write_page(bags, tmp_path / "page.html")
    assert edit_set(bags, Choices(frozenset({"zero"})), tmp_path / "kept") == 2
    for name in ("one", "two"):
        for file in (tmp_path / "episodes" / name).iterdir():
            assert (tmp_path / "kept" / name / file.name).read_bytes() == file.read_bytes()
    with pytest.raises(DataError, match="a recording is not cut; import it"):
        edit_set(bags, Choices(keep={"one": (0, 3)}), tmp_path / "cut")


def test_idle_ends_are_found_and_a_frozen_camera_is_counted(libero_file):
    path = libero_file(demos=1, steps=30)
    with h5py.File(path, "a") as file:
        demo = file["data/demo_0"]
        demo["actions"][:4], demo["actions"][28:] = 0, 0
        demo["actions"][:, 6] = -1
        demo["obs/agentview_rgb"][10:18] = demo["obs/agentview_rgb"][10]
    assert without_idle_ends(open_set(path)).keep == {"demo_0": (4, 27)}
    assert list(curves_of(next(iter(open_set(path).episodes()))).frozen[9:19]) == [0, 0, 1, 2, 3, 4, 5, 6, 7, 0]


# --- the page


@pytest.fixture(scope="module")
def nasty(write_libero, tmp_path_factory) -> Path:
    """A set whose instruction is markup, and whose second episode jumps."""
    path = write_libero(tmp_path_factory.mktemp("review") / "noise.hdf5", NASTY, steps=30, demos=3)
    with h5py.File(path, "a") as file:
        for demo in file["data"].values():
            demo["obs/joint_states"][:] = 0
            demo["actions"][:] *= 0.5
        file["data/demo_1/obs/joint_states"][5] = 1
    return path


@pytest.fixture(scope="module")
def page(nasty) -> str:
    assert main.run(["data", "show", str(nasty), "--out", str(nasty.parent)]) == 0
    return (nasty.parent / "noise.hdf5.html").read_text()


def test_markup_never_becomes_html(page):
    assert re.findall(r"<td>(demo_\d)</td><td>(\w+):", page) == [("demo_1", "jump")]
    assert "<img" not in page and "<b>" not in page and "&lt;b&gt;pick up" in page
    assert not re.search(r'(src|href)="(?!data:)', page)
    assert page.count("<video") == 3 and page.count("<svg") == 12


PROBE = """<script>
const box = (name, which) => articles.find(a => a.dataset.name == name).querySelector(which);
document.getElementById('flagged').click();
box('demo_2', '.trim').checked = true;
box('demo_2', '.first').value = 3;
box('demo_2', '.last').value = 20;
const pre = document.createElement('pre');
pre.id = 'probe';
pre.textContent = JSON.stringify({choices: choices(), title: document.title, images: document.images.length,
  page: document.documentElement.scrollWidth, window: innerWidth});
document.body.append(pre);
</script></body>"""


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on PATH (Debian: apt install chromium)")
def test_a_browser_saves_choices_that_drop_carries_out(page, tmp_path, capsys):
    """A copy of the page without its policy and with a script that clicks; in a narrow window."""
    page = re.sub(r"<meta http-equiv[^>]*>", "", page).replace("</body>", PROBE)
    (tmp_path / "probed.html").write_text(page)
    command = [
        CHROMIUM,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--window-size=500,900",
        "--disable-extensions",
    ]
    command += [f"--user-data-dir={tmp_path / 'profile'}", "--enable-logging=stderr", "--dump-dom"]
    done = subprocess.run(
        [*command, (tmp_path / "probed.html").as_uri()], capture_output=True, text=True, timeout=120, check=True
    )
    assert ":CONSOLE" not in done.stderr, done.stderr
    found = json.loads(re.search(r'<pre id="probe">(.*?)</pre>', done.stdout).group(1).replace("&amp;", "&"))
    assert found["title"] == "noise.hdf5: 3 episodes" and found["images"] == 0
    assert found["page"] <= found["window"]  # nothing sticks out to the side
    assert (found["choices"]["drop"], found["choices"]["keep"]) == (["demo_1"], {"demo_2": [3, 20]})
    file, out = tmp_path / "choices.json", tmp_path / "new.hdf5"
    file.write_text(json.dumps(found["choices"]))
    assert main.run(["data", "drop", "--choices", str(file), "--out", str(out)]) == 0
    assert "2 episodes; 1 dropped, 1 trimmed" in capsys.readouterr().out
    assert [each.steps for each in open_set(out).contents()] == [30, 18]
    assert main.run(["data", "drop", str(out), "--choices", str(file), "--out", str(tmp_path / "again.hdf5")]) == 2
    assert "was saved for other episodes than those of" in capsys.readouterr().err


def test_the_commands_by_the_command_line(libero_file, tmp_path, capsys):
    one, other = libero_file("one"), libero_file("other", seed=1)
    new = [tmp_path / f"{name}.hdf5" for name in ("dropped", "cut", "idle", "merged")]
    assert main.run(["data", "drop", str(one), "--episodes", "demo_0", "--out", str(new[0])]) == 0
    cut = ["--episodes", "demo_1", "--first", "2"]
    assert main.run(["data", "trim", str(one), *cut, "--out", str(new[1])]) == 0
    assert main.run(["data", "trim", str(one), "--idle", "--out", str(new[2])]) == 0
    assert main.run(["data", "merge", str(one), str(other), "--out", str(new[3])]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"next: m2distill data info {new[3]}"
    assert main.run(["data", "info", *map(str, new), "--json"]) == 0
    rows = [entry["instructions"]["pick up the milk"] for entry in json.loads(capsys.readouterr().out)]
    assert [(row["episodes"], row["steps"]) for row in rows] == [(2, 21), (3, 28), (3, 30), (6, 60)]
    assert main.run(["data", "info", str(new[0])]) == 0
    assert re.search(r"dropped\.hdf5 +HDF5 +pick up the milk +2 +21 +10 +10\.5 +11 ", capsys.readouterr().out)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["info"], "no set given"),
        (["info", "absent"], "absent is no set of demonstrations"),
        (["drop", "x.hdf5", "--out", "y.hdf5"], "give either --choices or --episodes"),
        (["trim", "x.hdf5", "--out", "y.hdf5"], "give one of --idle, --choices, or --first and --last"),
        (["trim", "x.hdf5", "--first", "2", "--out", "y.hdf5"], "--first and --last need --episodes"),
    ],
)
def test_a_wrong_request_is_one_line(words, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main.run(["data", *words]) == 2
    printed = capsys.readouterr().err
    assert message in printed and printed.count("\n") == 1 and list(tmp_path.iterdir()) == []


def test_rerun_receives_every_episode(libero_file, tmp_path, capsys):
    rerun = pytest.importorskip("rerun")
    path = libero_file(demos=1, steps=3)
    file = tmp_path / "noise.rrd"
    assert main.run(["data", "show", str(path), "--out", str(tmp_path), "--rerun", str(file)]) == 0
    assert file.stat().st_size > 3000 and file.read_bytes()[:3] == b"RRF"
    assert rerun.__version__ and str(file) in capsys.readouterr().out
