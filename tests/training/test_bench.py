"""The benchmarks measure what they report: both sides do the same work alternately."""

import dataclasses
import json

import numpy as np
import pytest
import torch

from m2distill_policy.errors import DataError
from m2distill_policy.models import Policy
from m2distill_policy.models.batch import to_model_input
from m2distill_policy.spec import libero_spec
from m2distill_training.bench import acting as bench_acting
from m2distill_training.bench.measure import Times, alternate, judged
from m2distill_training.bench.plain import plain_augment, plain_dataset, plain_policy
from m2distill_training.bench.steps import Steps, with_batch
from m2distill_training.bench.synthetic import memory_store, text, write_file
from m2distill_training.cli import main
from m2distill_training.config import AugmentConfig
from m2distill_training.data.store import open_store
from m2distill_training.data.windows import DemoSubset, Windows
from m2distill_training.presets import libero

SMALL = dataclasses.replace(libero(), image_px=16, history=2)  # the network that is measured, on tiny images


def part(task: int) -> DemoSubset:
    return DemoSubset(memory_store(5, SMALL.image_px, task), text(task), demos=(0,))


def test_the_plain_network_is_ours_in_the_plain_memory_layout():
    spec = libero_spec(SMALL.image_px, SMALL.history)
    windows = Windows([part(0)], SMALL.history).gather(np.arange(3))
    batch = to_model_input(windows["images"], windows["joint"], windows["gripper"], windows["text"])
    ours, plain = Policy(SMALL.model, spec).eval(), plain_policy(SMALL, spec).eval()
    plain.load_state_dict(ours.state_dict())
    layouts = {}
    for name, policy in (("ours", ours), ("plain", plain)):
        policy.image_encoders[0].blocks[0].register_forward_hook(
            lambda layer, args, out, name=name: layouts.update({name: out.is_contiguous()})
        )
    plain_batch = {**batch, "images": {name: x.contiguous() for name, x in batch["images"].items()}}
    with torch.no_grad():
        expected, got = ours(batch).latents, plain(plain_batch).latents
    assert all(torch.allclose(got[name], expected[name], atol=1e-5) for name in expected)
    assert layouts == {"ours": False, "plain": True}


def test_the_plain_crop_is_one_per_sample_shared_by_views_and_frames():
    """An image that holds its own pixel's row and column shows how far it was shifted."""
    B, T, H, W, pad = 40, 3, 8, 8, 2
    grid = torch.stack([torch.arange(H)[:, None].expand(H, W), torch.arange(W).expand(H, W), torch.zeros(H, W)])
    image = grid.float().expand(B, T, 3, H, W)
    torch.manual_seed(0)
    out = plain_augment({"agentview": image, "wrist": image}, AugmentConfig(0.0, 0.0, pad))
    assert torch.equal(out["agentview"], out["wrist"])
    middle = out["wrist"][:, :, :2, 4, 4]  # (B, T, 2), the row and column that came to (4, 4)
    assert (middle == middle[:, :1]).all()
    assert set((middle[:, 0] - 4).flatten().tolist()) == {-2, -1, 0, 1}  # robomimic never draws the last offset


def test_the_plain_colours_are_one_draw_per_sample_shared_by_views_and_frames():
    image = torch.rand(1, 1, 3, 8, 8, generator=torch.Generator().manual_seed(1)).expand(30, 2, 3, 8, 8)
    torch.manual_seed(0)
    out = plain_augment({"agentview": image, "wrist": image}, AugmentConfig(0.3, 0.5, 1))
    frames = torch.cat((out["agentview"], out["wrist"]), 1)  # (B, V*T, 3, H, W)
    assert torch.allclose(frames, frames[:, :1], atol=1e-6)
    brightness = frames[:, 0, :, 2:6, 2:6].mean((1, 2, 3))
    assert frames.min() >= 0 and frames.max() <= 1
    assert brightness.std() > 0.03


def test_both_readers_give_the_same_windows(tmp_path):
    """Every window of two demos, those padded at the end included: robomimic is the oracle."""
    file = write_file(tmp_path / "a_demo.hdf5", demos=2, steps=6, size_px=16)
    plain = plain_dataset(file, 4)
    windows = Windows([DemoSubset(open_store(file, libero_spec(16, 4), "as_stored"), text(0))], 4)
    assert len(plain) == len(windows) == 12
    for i in range(12):
        ours = windows.gather(np.array([i]))
        images = to_model_input(ours["images"], ours["joint"], ours["gripper"], ours["text"])["images"]
        expected = plain[i]
        np.testing.assert_allclose(images["agentview"][0], expected["obs"]["agentview_rgb"], atol=1e-6)
        np.testing.assert_allclose(images["wrist"][0], expected["obs"]["eye_in_hand_rgb"], atol=1e-6)
        np.testing.assert_array_equal(ours["joint"][0], expected["obs"]["joint_states"])
        np.testing.assert_array_equal(ours["gripper"][0], expected["obs"]["gripper_states"])
        np.testing.assert_array_equal(ours["action"][0], expected["actions"])


def test_a_file_that_robomimic_cannot_read_is_rejected(libero_file):
    with pytest.raises(DataError, match=r"robomimic cannot read it .*num_samples"):
        plain_dataset(libero_file(), 4)


def test_turns_alternate_and_the_first_of_each_does_not_count():
    calls = []
    times = alternate(lambda: calls.append("ours"), lambda: calls.append("plain"), 3, "test")
    assert calls == ["ours", "plain"] * 4
    assert len(times.ours_s) == len(times.plain_s) == 3


def test_the_median_counts():
    times = Times(ours_s=[0.2, 0.1, 9.0], plain_s=[0.5, 7.0, 0.6])
    assert (times.ours, times.plain) == (0.2, 0.6)
    assert times.in_ms()["ours_each_ms"] == [200.0, 100.0, 9000.0]


def test_a_bar_has_a_side():
    assert judged(3.0, ">=", 3)["holds"] and not judged(2.99, ">=", 3)["holds"]
    assert judged(1.35, "<=", 1.35)["holds"] and not judged(1.36, "<=", 1.35)["holds"]


@pytest.mark.parametrize(
    ("strategy", "terms"), [("er", {"loss", "bc"}), ("m2distill", {"loss", "bc", "image", "text", "extra", "policy"})]
)
def test_a_measured_step_is_the_strategy_s_own(strategy, terms):
    steps = Steps(with_batch(SMALL, strategy, 1, 1), part(1), [part(0)])
    losses = steps.step()
    assert losses.keys() == terms
    assert all(np.isfinite(value) for value in losses.values())


def test_bench_train_prints_every_field(capsys):
    assert main.run(["bench", "train", "--quick", "--repeats", "1", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    timed, (cores, beside), gaps = rows[:-4], rows[-4:-2], rows[-2:]
    assert [row["batch"] for row in timed] == [2, 4] * 3
    assert all(row["gap_nats"] < row["fall_nats"] and row["holds"] for row in gaps)
    assert all({"name", "value"} <= row.keys() for row in rows)
    assert cores["value"] > 0
    assert beside["holds"] == (beside["value"] >= 0.4) and beside["value"] > 0
    for row in timed:
        assert {"name", "ours_ms", "plain_ms", "ratio", "batch", "threads", "torch", "cpu"} <= row.keys()
        quotient = row["plain_ms"] / row["ours_ms"]
        assert row["ratio"] == pytest.approx(1 / quotient if "cost" in row["name"] else quotient, rel=0.05)


@pytest.mark.parametrize("amx", [True, False])
def test_the_fastest_backend_is_judged_and_bfloat16_only_with_amx(amx, monkeypatch):
    monkeypatch.setattr(bench_acting, "has_amx", lambda: amx)
    rows = [
        {"name": f"acting with {backend} in {precision} over LIBERO's get_action", "value": value}
        for backend, precision, value in [
            ("torch", "float32", 0.6),
            ("torch", "bfloat16", 0.4),
            ("openvino", "float32", 0.45),
            ("openvino", "bfloat16", 0.3),
        ]
    ]
    full, half = bench_acting.fastest(rows)
    assert (full["value"], full["bar"], full["holds"]) == (0.45, "<= 0.5", True)
    assert "openvino" in full["name"]
    assert (half["value"], half["holds"]) == (0.3, False if amx else "")


def test_bench_data_reads_a_given_file(tmp_path, capsys):
    file = write_file(tmp_path / "a_demo.hdf5", demos=2, steps=20, size_px=24)
    assert main.run(["bench", "data", "--quick", "--repeats", "1", "--json", "--data", str(file)]) == 0
    stored, tensors, *memory = json.loads(capsys.readouterr().out)
    assert (stored["image_px"], tensors["image_px"]) == (24, 24)
    assert tensors["ratio"] == pytest.approx(tensors["ours_windows_s"] / tensors["plain_windows_s"], rel=0.05)
    assert [row["earlier_tasks"] for row in memory] == [1, 3]
    assert all(row["own_mb"] > 50 and row["step_ms"] > 0 for row in memory)  # torch alone takes more
    assert list(tmp_path.iterdir()) == [file]  # nothing is left beside the user's data


def test_bench_sim_compares_with_liberos_wrapper_and_two_processes_with_one(capsys):
    assert main.run(["bench", "sim", "--quick", "--repeats", "1", "--json"]) == 0
    one, two, evaluated = json.loads(capsys.readouterr().out)
    assert evaluated["ratio"] == pytest.approx(evaluated["ours_cpu_s"] / evaluated["plain_cpu_s"], rel=0.05)
    assert evaluated["bar"] == "<= 0.6" and evaluated["holds"] == (evaluated["ratio"] <= 0.6)
    assert one["assets"] == two["assets"] and one["assets"].startswith("builtin-")
    assert (one["bar"], two["bar"]) == (">= 20 steps/s", ">= 1.8")
    assert one["holds"] == (one["ours_steps_s"] >= 20)
    for row in (one, two):
        assert row["ratio"] == pytest.approx(row["ours_steps_s"] / row["plain_steps_s"], rel=0.05)
    assert min(row[key] for row in (one, two) for key in ("ours_steps_s", "plain_steps_s")) > 0


@pytest.mark.parametrize("command", ["train", "data", "sim"])
def test_help_gives_an_example_and_bad_numbers_are_rejected(command, capsys):
    assert main.run(["bench", command, "--help"]) == 0
    assert f"example: m2distill bench {command} " in " ".join(capsys.readouterr().out.split())
    assert main.run(["bench", command, "--repeats", "0"]) == 2
    assert "repeats is 0, expected at least 1" in capsys.readouterr().err
