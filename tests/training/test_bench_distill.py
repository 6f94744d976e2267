"""`m2distill bench distill` on the real starter; the demonstrations are noise."""

import dataclasses
import json

import pytest

from m2distill_policy.bringup.system import STARTER_CHECKPOINT
from m2distill_policy.checkpoint import load_checkpoint
from m2distill_sim.suites import find_task
from m2distill_training.bench.distill import MEASURES, ROLES, VARIANTS, config_of, judge
from m2distill_training.cli import main
from m2distill_training.evaluation.acting_weights import first_decoder


def test_bench_distill_prints_every_key(write_libero, tmp_path, capsys):
    for role in ROLES.values():
        write_libero(tmp_path / role.file, instruction=find_task(role.suite, role.task).instruction, size_px=64)
    chosen = ["finetune", "m2distill", "recall", "stored", "spread", "latent_replay", "latent_perturb", "average"]
    command = ["bench", "distill", "--json", "--quick", "--seeds", "3", "4", "--data", str(tmp_path)]
    assert main.run([*command, "--later-lr", "0.5", "--strategies", *chosen]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (list(report["strategies"]), report["seeds"], report["steps"]) == (chosen, [3, 4], 3)
    assert report["later_lr"] == 0.5
    assert {"cpu", "threads", "torch", "source"} <= report.keys()
    for found in report["strategies"].values():
        for value in (*(found[key] for key in MEASURES), *(found["drift"][key] for key in ("image", "text", "extra"))):
            assert len(value["per_seed"]) == 2
            assert value["mean"] == pytest.approx(sum(value["per_seed"]) / 2, rel=1e-4, abs=1e-9)
    assert {"bar", "holds", "value", "name"} == report["bars"][0].keys()


@pytest.mark.parametrize("floor", [0.02, 0.25])
def test_every_student_has_the_network_of_the_starter(floor):
    starter = first_decoder(load_checkpoint(STARTER_CHECKPOINT))
    assert config_of("m2distill", starter, 0, 3).model == starter.model_config
    other = dataclasses.replace(starter, model_config=dataclasses.replace(starter.model_config, min_std=floor))
    for name in VARIANTS:
        config = config_of(name, other, seed=5, steps=7)
        assert config.model == other.model_config
        assert (config.seed, config.optim.budget, config.history) == (5, 7, other.spec.history)
        assert config.optim.later_lr == 1.0
    assert config_of("er", other, seed=5, steps=7, later_lr=0.3).optim.later_lr == 0.3


def test_a_file_with_too_few_demonstrations_is_named(write_libero, tmp_path, capsys):
    role = ROLES["new"]
    write_libero(tmp_path / role.file, instruction=find_task(role.suite, role.task).instruction, size_px=64)
    assert main.run(["bench", "distill", "--data", str(tmp_path)]) == 2
    printed = capsys.readouterr().err
    assert f"{role.file} holds 3 demos, expected 24; remove it to collect them again" in printed


def test_an_unknown_strategy_or_seed_is_reported_in_one_line(capsys):
    assert main.run(["bench", "distill", "--strategies", "no_imag"]) == 2
    assert "unknown strategy of this benchmark 'no_imag'; did you mean 'no_image'" in capsys.readouterr().err
    assert main.run(["bench", "distill", "--later-lr", "0", "--strategies", "er", "--quick"]) == 2
    assert "optim.later_lr is 0.0" in capsys.readouterr().err
    assert main.run(["bench", "distill", "--seeds", "-1"]) == 2
    assert "seeds are [-1], expected at least one number from 0" in capsys.readouterr().err


def test_the_bars_are_judged_on_the_means():
    def summary(kl: float, drift: float, share: tuple = ()) -> dict:
        drifts = {group: {"mean": drift} for group in ("image", "text", "extra")}
        values = {"unreplayed_kl": {"mean": kl}, "new_nll": {"mean": -9.0}, "drift": drifts}
        return values | {"gradient_share": {"image": share} if share else {}}

    found = {name: summary(5.0, 0.3) for name in VARIANTS}
    found |= {"m2distill": summary(4.0, 0.1, (0.01, 0.9)), "recall": summary(1.0, 0.1)}
    bars = {row["name"]: (row["value"], row["holds"]) for row in judge(found)}
    assert bars["image drift, with the term over without"] == (0.333, True)
    assert bars["divergence of m2distill on the task that is not replayed, nats"] == (4.0, False)
    assert bars["smallest gradient of the image term over cloning's"] == (0.01, False)
    assert bars["largest gradient of the image term over cloning's"] == (0.9, True)
    assert bars["divergence of recall over m2distill's on the task that is not replayed"] == (0.25, True)
    assert judge({"er": summary(1.0, 0.1)}) == []
