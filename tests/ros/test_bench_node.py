"""`m2distill bench node` with real ROS 2: its figures."""

import json

import pytest

from m2distill_policy.errors import UserError
from m2distill_training.bench.node import judge
from m2distill_training.bench.ros.latency_probe import summary
from m2distill_training.cli import main


def test_bench_node_prints_every_field(monkeypatch, capsys):
    monkeypatch.delenv("LIBERO_SOURCE", raising=False)
    assert main.run(["bench", "node", "--quick", "--seconds", "5", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert len(rows) == 6
    median, start = rows["image's stamp to command, median"], rows["start of the process to active"]
    assert 0 < median["periods"] <= 105  # a busy machine sends fewer
    assert median["act_ms"] > 1 and median["value"] > 1 and start["value"] > 0.5  # less would be another network
    assert rows["resident memory"]["value"] > 100
    assert rows["longest gap while a checkpoint is swapped"]["value"] >= 0.9  # commands come once a period
    assert all({"bar", "holds", "threads", "torch", "cpu"} <= row.keys() for row in rows.values())


def test_each_threshold_is_compared_with_its_own_value():
    measured = {
        "median_ms": 23.1,
        "p99_ms": 49.0,
        "max_ms": 80.0,
        "periods": 1200,
        "missed": 1,
        "start_s": 12.5,
        "resident_mb": 500.0,
        "gap_periods": 1.9,
        "swap_s": 1.0,
    }
    assert [(row["bar"], row["holds"]) for row in judge(measured, act_ms=20.0)] == [
        ("<= 23.0", False),
        ("<= 50", True),
        ("<= 0", False),
        ("<= 12", False),
        ("<= 900", True),
        ("<= 2", True),
    ]


def test_a_period_is_answered_by_the_command_with_its_stamp():
    """The zero twist of a held arm has a stamp of its own and answers no period."""
    ms = 1_000_000
    answered = {0: 20 * ms, 50 * ms: 74 * ms, 151 * ms: 152 * ms}
    assert summary([0, 50 * ms, 100 * ms, 150 * ms], answered) == {
        "periods": 4,
        "missed": 2,
        "median_ms": 22.0,
        "p99_ms": 23.96,
        "max_ms": 24.0,
    }
    with pytest.raises(UserError, match="no command arrived in 1 periods"):
        summary([100 * ms], answered)
