"""`m2distill bench soak` with real ROS 2: its figures."""

import json

from m2distill_training.cli import main


def test_bench_soak_reports_memory_misses_and_losses(capsys):
    assert main.run(["bench", "soak", "--quick", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert 50 <= rows["actions"]["value"] <= 260 and rows["actions"]["episodes"] == 2
    assert 0 <= rows["missed"]["value"] < rows["actions"]["value"]
    assert all(rows[f"{node}: memory at the end"]["value"] > 20 for node in ("sim", "policy", "recorder"))
    assert {"agentview/image_raw: lost", "wrist/image_raw: lost", "joint_states: lost"} <= rows.keys()
