"""Markers by folder and by file, and the order of files: the longest begin first, so that no process ends long before
the others. `-m "not slow and not ros and not sim"` leaves the quick tests of `make check`."""

from pathlib import Path

import pytest

HERE = Path(__file__).parent
FOLDERS = {"ros": ["ros"], "e2e": ["ros", "sim", "slow"], "fuzz": ["slow"], "sim": ["sim"]}
SLOW = {  # files that together keep a core busy for over 10 s; single tests of over 1 s are marked where they stand
    "docs/test_tutorials.py",
    "policy/test_backends.py",
    "policy/test_text_encoder.py",
    "training/test_bench.py",
    "training/test_bench_distill.py",
    "training/test_bench_experts.py",
    "training/test_demo.py",
    "training/test_disk_faults.py",
    "training/test_disk_readers.py",
    "training/test_evaluate.py",
    "training/test_evaluate_crash.py",
    "training/test_further_strategies.py",
    "training/test_learn_promote.py",
    "training/test_lerobot_libero.py",
    "training/test_loop.py",
    "training/test_loop_strategies.py",
    "training/test_parts.py",
    "training/test_report.py",
    "training/test_rollout_report.py",
    "training/test_run.py",
    "training/test_study.py",
    "training/test_token_cache.py",
}

TIMING = {  # files that measure a latency, a rate or a stop: at most one other of them runs beside
    "ros/test_bench_node.py",
    "ros/test_fault.py",
    "ros/test_faults.py",
    "ros/test_hang.py",
    "ros/test_joint_parts.py",
    "ros/test_outputs.py",
    "ros/test_recorder.py",
    "ros/test_reload.py",
    "ros/test_stop_times.py",
    "ros/test_teleop.py",
}

LONGEST = (  # files that take over 30 s on an idle machine, or begin a cluster or a build for all of their tests
    "training/test_cluster.py",
    "packaging/test_workspace.py",
    "training/test_evaluate_crash.py",
    "training/test_parts.py",
    "api/test_api.py",
    "training/test_bench.py",
    "training/test_loop_strategies.py",
    "training/test_run.py",
    "training/test_demo.py",
    "training/test_study.py",
    "training/test_learn_promote.py",
    "training/test_report.py",
    "training/test_evaluate.py",
    "e2e/test_demo.py",
    "ros/test_bringup.py",
    "ros/test_teach.py",
    "ros/test_sim_by_the_clock.py",
    "ros/test_authority.py",
    "ros/test_arms.py",
    "ros/test_activation.py",
    "ros/test_gripper_actions.py",
    "ros/test_hang.py",
    "ros/test_dashboard.py",
    "ros/test_one_line_errors.py",
    "ros/test_hangup.py",
    "ros/test_recorder_parity.py",
    "ros/test_overtaken.py",
    "ros/test_policy_node.py",
    "ros/test_starter.py",
    "ros/test_malformed.py",
    "ros/test_teleop.py",
    "ros/test_fault.py",
    "ros/test_bench_node.py",
    "ros/test_lockstep.py",
    "ros/test_follow.py",
    "ros/test_stops_beside.py",
    "ros/test_other_robot.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    rank = {HERE / name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: rank.get(item.path, len(rank)))
    for item in items:
        if HERE not in item.path.parents:
            continue
        relative = item.path.relative_to(HERE)
        for name in FOLDERS.get(relative.parts[0], []):
            item.add_marker(name)
        if str(relative) in SLOW:
            item.add_marker("slow")
        if str(relative) in TIMING:
            item.add_marker("timing")


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("cuda"):
        import torch

        if not torch.cuda.is_available():
            pytest.skip("no NVIDIA GPU")
