"""Every strategy through the whole loop: interrupted anywhere, over several tasks, and what it leaves on disk."""

import dataclasses
import itertools
import signal
from pathlib import Path

import pytest
import torch

from m2distill_policy.checkpoint import load_checkpoint
from m2distill_training.config import ConfigError, ProtocolConfig, TrainConfig
from m2distill_training.data.replay import choose_demos, coverage_order
from m2distill_training.data.store import open_store
from m2distill_training.engine.continue_run import learn
from m2distill_training.engine.train import train
from m2distill_training.presets import debug
from m2distill_training.runs.records import RunError
from m2distill_training.runs.run_folder import RunFolder
from m2distill_training.strategies.m2distill import M2Distill
from m2distill_training.strategies.registry import BUILT_IN, find_strategy


@pytest.fixture
def files(libero_file) -> list[Path]:
    texts = ("pick up the milk", "open the drawer", "close it", "turn on the stove")
    return [libero_file(f"{i}", instruction=text, seed=i) for i, text in enumerate(texts)]


def quick(strategy: str, budget: int = 3, **changes) -> TrainConfig:
    return dataclasses.replace(
        debug().with_strategy(strategy),
        save_every=2,
        optim=dataclasses.replace(debug().optim, budget=budget, warmup_steps=1),
        **changes,
    )


def outcome(run: RunFolder) -> dict:
    """All that a run leaves, but for its speed."""
    stages = sorted((run.path / "stages").iterdir())
    return {
        "ids": [load_checkpoint(stage / "checkpoint").id for stage in stages],
        "memories": [path.read_bytes() for stage in stages for path in stage.glob("memory.safetensors")],
        "metrics": [{name: x for name, x in line.items() if name != "steps_per_s"} for line in run.metrics()],
        "files": sorted(path.name for stage in stages for path in stage.iterdir()),
    }


@pytest.mark.parametrize("strategy", BUILT_IN)
def test_interrupted_or_killed_at_every_gradient_step_ends_like_the_uninterrupted_run(strategy, files, tmp_path):
    """Ctrl-C after one gradient step, a crash without a word after the next that is new, and so on to the end."""
    config, whole, broken = quick(strategy), tmp_path / "whole", tmp_path / "broken"
    seen = []
    train(config, files[:2], whole, on_step=lambda p: seen.append((p.stage, p.step)))
    stops = itertools.cycle([lambda: signal.raise_signal(signal.SIGINT), _crash])
    for moment, stop in zip(seen, stops, strict=False):

        def on_step(progress, moment=moment, stop=stop):
            if (progress.stage, progress.step) == moment:
                stop()

        with pytest.raises((KeyboardInterrupt, MemoryError)):
            train(config, files[:2], broken, resume=broken.exists(), on_step=on_step)
    train(config, files[:2], broken, resume=True)
    assert outcome(RunFolder(broken)) == outcome(RunFolder(whole))
    balanced = issubclass(find_strategy(strategy), M2Distill)
    assert ("multiplier_text" in RunFolder(broken).metrics()[-1]) == balanced  # measured before the last interruption


def _crash() -> None:
    raise MemoryError


@pytest.mark.parametrize("strategy", [name for name in BUILT_IN if name not in ("multitask", "decoders", "networks")])
def test_what_a_stage_leaves_does_not_grow_with_the_tasks_learned(strategy, files, tmp_path):
    run = train(quick(strategy, budget=1), files, tmp_path / "run")

    def size(stage: int, name: str) -> int:
        return sum(path.stat().st_size for path in (run.path / "stages" / str(stage)).rglob(name))

    for name in ("weights.safetensors", "memory.safetensors"):
        assert len({size(stage, name) for stage in range(1, 5)}) == 1, name
    assert (size(1, "memory.safetensors") > 0) == (strategy in ("ewc", "packnet"))
    width = load_checkpoint(run.checkpoint(1)).spec.text_width
    known = [len(load_checkpoint(run.checkpoint(stage)).instructions) for stage in range(1, 5)]
    assert known == ([1] * 4 if strategy == "packnet" else [1, 2, 3, 4])
    grown = size(4, "instructions.safetensors") - size(1, "instructions.safetensors")
    assert grown <= (known[3] - known[0]) * (4 * width + 200)  # one embedding each, and its name


def test_packnet_keeps_every_earlier_network_within_the_present_one(files, tmp_path):
    config = quick("packnet", budget=4)
    run = train(config, files[:2], tmp_path / "run")
    first, second = (load_checkpoint(run.checkpoint(stage)).state_dict for stage in (1, 2))
    moved = 0
    for name, x in first.items():
        kept = x != 0
        assert torch.equal(second[name][kept], x[kept]), name
        moved += int((second[name] != x).sum())
    assert moved > 0
    assert [line["step"] for line in run.metrics() if line["stage"] == 1] == list(range(1, 9))  # and retrained
    rates = [line["lr"] for line in run.metrics() if line["stage"] == 1]
    assert rates[:4] == rates[4:]


@pytest.mark.parametrize("strategy", ["finetune", "packnet"])
def test_the_learning_curve_has_a_checkpoint_at_equal_distances_from_first_to_last_gradient_step(
    strategy, files, tmp_path
):
    run = train(quick(strategy, budget=6, curve_points=3), files[:1], tmp_path / "run")
    points = [load_checkpoint(path) for path in run.curve(1)]
    assert [point.metrics["gradient_steps"] for point in points] == [0, 2, 4, 6]
    assert len({point.id for point in points}) == 4
    last = load_checkpoint(run.checkpoint(1)).state_dict
    same = all(torch.equal(x, last[name]) for name, x in points[-1].state_dict.items())
    assert same == (strategy == "finetune")  # packnet prunes and retrains after the last point


def test_er_and_m2distill_replay_the_same_demos_within_the_total_budget(files, tmp_path):
    config = quick("er", budget=1)
    config = dataclasses.replace(config, replay=dataclasses.replace(config.replay, demos_per_task=2, total_demos=3))
    er = train(config, files, tmp_path / "er")
    m2distill = train(config.with_strategy("m2distill"), files, tmp_path / "m2distill")
    for stage in range(1, 5):
        kept = load_checkpoint(er.checkpoint(stage)).metrics["replayed_demos"]
        assert kept == load_checkpoint(m2distill.checkpoint(stage)).metrics["replayed_demos"]
        assert sorted(len(demos) for demos in kept.values()) == [[], [2], [1, 2], [1, 1, 1]][stage - 1]


def test_a_memory_of_covering_demos_is_part_of_what_was_learned_and_learn_keeps_it(files, libero_file, tmp_path):
    files = [libero_file(f"c{i}", instruction=f"task {i}", seed=i, demos=8) for i in range(3)]
    base = quick("er", budget=1, protocol=ProtocolConfig("custom", (), (5,)))
    replay = dataclasses.replace(base.replay, choice="coverage", demos_per_task=2, total_demos=3, held_out_demos=1)
    config = dataclasses.replace(base, replay=replay)
    whole = train(config, files, tmp_path / "whole")
    kept = {}
    for stage in (2, 3):
        kept[stage] = load_checkpoint(whole.checkpoint(stage)).metrics["replayed_demos"]
        for task, (text, demos) in enumerate(kept[stage].items()):
            learned = choose_demos(8, 5, 0, task)
            store = open_store(files[task], load_checkpoint(whole.checkpoint(1)).spec, config.pairing)
            joints = [store.joint[store.bounds[d] : store.bounds[d + 1]] for d in learned]
            assert demos == sorted(learned[i] for i in coverage_order(joints)[: len(demos)]), text
    assert set(kept[3]["task 0"]) <= set(kept[2]["task 0"])  # a dropped demo never returns
    run = train(
        dataclasses.replace(config, protocol=ProtocolConfig("custom", (1, 1), (5,))), files[:2], tmp_path / "run"
    )
    learn(run.path, files[2])
    assert load_checkpoint(run.checkpoint(3)).metrics["replayed_demos"] == kept[3]


def test_phases_balance_the_replayed_windows_of_a_run(files, tmp_path):
    config = quick("er", budget=2)
    balanced = dataclasses.replace(config, replay=dataclasses.replace(config.replay, phases=True))
    ids = [
        load_checkpoint(train(c, files[:2], tmp_path / n).checkpoint(2)).id for n, c in (("a", config), ("b", balanced))
    ]
    assert ids[0] != ids[1]
    with pytest.raises(ConfigError, match=r"unknown replay.choice 'covrage'; did you mean 'coverage'"):
        dataclasses.replace(config.replay, choice="covrage")


def test_a_stage_learns_only_the_demos_that_its_protocol_gives_it(files, tmp_path):
    config = quick("er", budget=1, protocol=ProtocolConfig("custom", (2, 1), (2, 1)))
    run = train(config, files[:3], tmp_path / "run")
    kept = load_checkpoint(run.checkpoint(2)).metrics["replayed_demos"]
    learned = {"pick up the milk": choose_demos(3, 2, seed=0, task=0), "open the drawer": choose_demos(3, 2, 0, 1)}
    assert kept.keys() == learned.keys()
    assert all(set(kept[text]) < set(demos) for text, demos in learned.items())


def test_multitask_learns_all_at_once(files, tmp_path):
    run = train(quick("multitask"), files[:3], tmp_path / "run")
    checkpoint = load_checkpoint(run.checkpoint(1))
    assert len(checkpoint.instructions) == 3
    assert checkpoint.metrics["gradient_steps"] == 3 * 3  # the budget of every task
    assert not run.checkpoint(2).exists()


def test_instructions_given_replace_those_of_the_files(files, tmp_path):
    run = train(quick("er", budget=1), files[:2], tmp_path / "run", instructions=["lift the milk", "pull the drawer"])
    checkpoint = load_checkpoint(run.checkpoint(2))
    assert list(checkpoint.metrics["replayed_demos"]) == ["lift the milk"]
    assert set(checkpoint.instructions) == {"lift the milk", "pull the drawer"}
    with pytest.raises(RunError, match="changed or missing: 'lift the milk' from .*0_demo.hdf5"):
        train(quick("er", budget=1), files[:2], tmp_path / "run", resume=True, instructions=["x", "pull the drawer"])


@pytest.mark.parametrize("strategy", ["ewc", "packnet"])
def test_a_strategy_that_remembers_begins_with_its_own_first_stage(strategy, files, tmp_path):
    with pytest.raises(RunError, match=f"{strategy} needs more of the first stage than a checkpoint holds"):
        train(quick(strategy), files[:2], tmp_path / "run", start_from=tmp_path)


def test_a_lost_or_damaged_memory_is_named(files, tmp_path):
    out = tmp_path / "run"

    def stop(progress):
        if progress.stage == 2:
            raise MemoryError

    with pytest.raises(MemoryError):
        train(quick("ewc", budget=1), files[:2], out, on_step=stop)
    memory = out / "stages" / "1" / "memory.safetensors"
    memory.write_bytes(memory.read_bytes()[:-10])
    with pytest.raises(RunError, match=r"memory.safetensors, which the next stage needs, cannot be read"):
        train(quick("ewc", budget=1), files[:2], out, resume=True)
    memory.unlink()
    with pytest.raises(RunError, match=r"memory.safetensors, which the next stage needs, cannot be read"):
        train(quick("ewc", budget=1), files[:2], out, resume=True)
