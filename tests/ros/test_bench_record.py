"""`m2distill bench record` with real ROS 2: its figures."""

import itertools
import json
from types import SimpleNamespace

from m2distill_policy.ros.clients import client_node
from m2distill_training.cli import main


def test_bench_record_prints_every_field(capsys):
    assert main.run(["bench", "record", "--seconds", "1", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["name"].partition(" lost of ")[0] for row in rows] == [
        "instruction",
        "joint_states",
        "agentview/image_raw",
        "wrist/image_raw",
        "recorder's share of a core",
    ]
    published = {name: int(count) for name, _, count in (row["name"].partition(" lost of ") for row in rows[:-1])}
    assert 10 <= published["wrist/image_raw"] <= 40 and 30 <= published["joint_states"] <= 120
    assert all(0 <= row["value"] <= published[row["name"].partition(" lost of ")[0]] for row in rows[:-1])
    assert rows[-1]["value"] > 0 and all({"bar", "holds", "seconds", "cpu", "source"} <= row.keys() for row in rows)


def test_a_client_may_run_longer_than_the_limit_of_a_wait(monkeypatch):
    passed_s = itertools.count(step=10)
    monkeypatch.setattr(client_node, "time", SimpleNamespace(monotonic=lambda: next(passed_s)))
    monkeypatch.setattr(client_node, "rclpy", SimpleNamespace(spin_once=lambda node, timeout_sec: None))
    client_node.ClientNode.run(client_node.ClientNode.__new__(client_node.ClientNode), 300)
    assert next(passed_s) >= 300 > client_node.LIMIT_S
