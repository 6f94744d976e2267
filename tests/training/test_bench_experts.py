import json

from m2distill_training.bench.experts import bench_experts


def test_success_is_counted_and_a_second_run_continues_from_the_log(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    log = tmp_path / "experts.jsonl"
    arguments = {"json": True, "suite": ("libero_object",), "tasks": (0,), "log": log}
    bench_experts(states=1, **arguments)
    row, mean = json.loads(capsys.readouterr().out)
    assert row["successes"] == row["episodes"] == mean["episodes"] == 1 and row["holds"]
    assert row["wilson_95"] == [0.207, 1.0]  # one of one
    entry = json.loads(log.read_text())
    assert (entry["state"], entry["success"], entry["steps"]) == (0, True, row["steps"])

    failure = entry | {"state": 1, "success": False}
    others = entry | {"state": 2, "source": "of other experts"}
    log.write_text("\n".join(json.dumps(line) for line in (entry, failure, others)) + '\n{"state": 3, "succ')
    bench_experts(states=2, **arguments)  # both are in the log: nothing runs
    row, _ = json.loads(capsys.readouterr().out)
    assert (row["successes"], row["episodes"], row["failed_states"]) == (1, 2, [1])
    assert not row["holds"]
