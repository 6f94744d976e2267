"""Comparison of strategies: metrics by hand, and what may not be compared."""

import dataclasses
import json

import numpy as np
import pytest
from evaluated_runs import FORGETS, KEEPS, SUITE, make_run_fixture, three_stages

from m2distill_policy.errors import UserError
from m2distill_training.cli import main
from m2distill_training.evaluation.compare import compare, failed_gates
from m2distill_training.evaluation.paired import METRICS
from m2distill_training.presets import debug
from m2distill_training.runs.records import read_json

make_run = make_run_fixture


def test_fewer_episodes_of_earlier_tasks_are_compared_on_the_common_starts(make_run):
    """The first 4 of 10 starts: of 9, 5 and 1 successes they hold 4, 4 and 1."""
    runs = [
        make_run(f"{name}-{seed}", name, seed, wins, earlier=4)
        for seed in (0, 1)
        for name, wins in (("er", FORGETS), ("m2distill", KEEPS))
    ]
    result = compare(runs, metrics=["auc", "nbt"], resamples=100)
    auc, nbt = result.comparisons
    assert auc.baseline_mean == pytest.approx(np.mean([np.mean([4, 4, 1]) / 4, np.mean([4, 4]) / 4, 1]))
    assert auc.candidate_mean == 1 and nbt.candidate_mean == 0
    assert nbt.baseline_mean == pytest.approx(np.mean([(0 + 0.75) / 2, 0]))
    assert any("the 4 starts that every stage has" in note for note in result.notes)
    other = make_run("whole", "finetune", 0, FORGETS)
    with pytest.raises(UserError, match="start states"):
        compare([*runs, other])


def test_metrics_by_hand(make_run):
    runs = [make_run("er", "er", 0, FORGETS), make_run("m2distill", "m2distill", 0, KEEPS)]
    found = {x.metric: x for x in compare(runs).comparisons}
    assert list(found) == ["fwt", "nbt", "auc", "final", "normalised_nbt"]

    def pair(metric):
        return found[metric].baseline_mean, found[metric].candidate_mean

    assert pair("fwt") == (pytest.approx(0.9), pytest.approx(0.9))  # (9 + 8 + 10) / 30
    assert pair("nbt") == (pytest.approx(0.5), pytest.approx(0.125))  # ((4 + 8) / 2 + 4) / 20, ((0 + 1) / 2 + 2) / 20
    assert pair("auc") == (pytest.approx(0.7), pytest.approx((26 / 3 + 7 + 10) / 30))  # (15 / 3 + 12 / 2 + 10) / 30
    assert pair("final") == (pytest.approx(0.5), pytest.approx(0.8))
    # Each drop divided by what there was to lose: (6 / 9 + 4 / 8) / 2 and (0.5 / 9 + 2 / 8) / 2.
    assert pair("normalised_nbt") == (pytest.approx((6 / 9 + 4 / 8) / 2), pytest.approx((0.5 / 9 + 2 / 8) / 2))
    assert found["nbt"].difference == pytest.approx(-0.375) and not found["nbt"].higher_is_better
    for name in ("fwt", "nbt", "auc"):
        written = [read_json(run / "evaluation.json")["metrics"][name] for run in runs]
        assert pair(name) == pytest.approx(tuple(written))


def base6_plus4(after):
    """Return wins of six tasks learned jointly and four one by one; the six have after[i] of 10 after stage i."""
    return [{task: after[i] if task < 6 else 9 for task in range(6 + i)} for i in range(5)]


def test_a_joint_stage_counts_once_per_stage_and_six_times_per_task(make_run):
    """Six tasks fall from 90 to 40 %: by 12.5, 25, 37.5 and 50 points, 31.25 in the mean, and nothing else is lost.

    Per stage this is 31.25 / 4 = 7.8, as four stages have a later one. Per task it is 6 * 31.25 / 9 = 20.8.
    """
    falls = [
        {task: (72, 62, 52, 42, 32)[i] if task < 6 else 72 for task in range(6 + i)} for i in range(5)
    ]  # of 80 episodes
    stays = [{task: 72 for task in range(6 + i)} for i in range(5)]
    runs = [make_run(name, name, 0, wins, episodes=80) for name, wins in (("er", falls), ("m2distill", stays))]
    found = {x.metric: x for x in compare(runs, resamples=100).comparisons}
    assert list(found) == list(METRICS)
    assert found["nbt"].baseline_mean == pytest.approx(0.2083, abs=1e-4)
    assert found["nbt_per_stage"].baseline_mean == pytest.approx(0.0781, abs=1e-4)
    assert read_json(runs[0] / "evaluation.json")["metrics"]["nbt"] == pytest.approx(0.0781, abs=1e-4)
    assert found["final"].baseline_mean == pytest.approx((6 * 0.4 + 4 * 0.9) / 10)
    assert found["final_per_stage"].baseline_mean == pytest.approx((0.4 + 4 * 0.9) / 5)
    assert found["normalised_nbt"].baseline_mean == pytest.approx(6 * 0.3125 / 0.9 / 9)
    for metric in ("fwt", "auc"):
        written = read_json(runs[0] / "evaluation.json")["metrics"][metric]
        assert found[f"{metric}_per_stage"].baseline_mean == pytest.approx(written)


def test_a_task_that_was_not_learned_is_left_out_of_normalised_forgetting(make_run):
    """Task 4 has no success to lose in one of the two runs, so both are compared on task 2 alone: 4 / 8 and 2 / 8."""
    runs = [
        make_run("er", "er", 0, three_stages((0, 0, 1), (8, 4), (10,))),
        make_run("m2distill", "m2distill", 0, KEEPS),
    ]
    result = compare(runs, metrics=["normalised_nbt"])
    (found,) = result.comparisons
    assert (found.baseline_mean, found.candidate_mean) == (pytest.approx(0.5), pytest.approx(0.25))
    assert found.left_out == 1
    assert any("1 pairs of seed and task left out" in note for note in result.notes)


def test_forgetting_is_undefined_for_one_stage(make_run):
    runs = [make_run(name, name, 0, [{4: 5, 2: 6}]) for name in ("er", "m2distill")]
    found = {x.metric: x for x in compare(runs).comparisons}
    assert found["nbt"].difference is None and found["nbt"].interval_95 is None and found["nbt"].seeds == ()
    assert found["final"].difference == 0
    with pytest.raises(UserError, match="nbt of m2distill is not defined"):
        failed_gates(compare(runs), {"nbt": 0.1})


def test_a_joint_strategy_is_compared_by_the_end_alone(make_run):
    runs = [make_run("er", "er", 0, FORGETS), make_run("multitask", "multitask", 0, [{2: 9, 7: 9, 4: 9}])]
    found = {x.metric: x for x in compare(runs).comparisons}
    assert found["final"].difference == pytest.approx(0.9 - 0.5)
    assert [name for name, x in found.items() if x.difference is None] == ["fwt", "nbt", "auc", "normalised_nbt"]


def seeds_of(make_run, strategy, wins_of, seeds, **options):
    return [make_run(f"{strategy}-{seed}", strategy, seed, wins_of(seed), **options) for seed in seeds]


def test_p_values_effect_sizes_and_holm_over_six_seeds(make_run):
    runs = seeds_of(make_run, "er", lambda s: three_stages((5, 4, s % 3), (5, 3), (6,)), range(6))
    runs += seeds_of(make_run, "m2distill", lambda s: three_stages((8, 8, 7), (9, 8), (9,)), range(6))
    result = compare(runs, metrics=["auc", "final"])
    auc, final = result.comparisons
    assert result.groups == {"er": tuple(range(6)), "m2distill": tuple(range(6))}
    np.testing.assert_allclose(final.per_seed, [(7 + 8 + 9 - s % 3 - 3 - 6) / 30 for s in range(6)])
    assert final.effect_size == pytest.approx(np.mean(final.per_seed) / np.std(final.per_seed, ddof=1))
    assert (auc.p, auc.p_holm, final.p, final.p_holm) == (0.03125, 0.0625, 0.03125, 0.0625)
    assert final.interval_95[0] < final.difference < final.interval_95[1]
    assert any(
        "covers 2 comparisons: the smallest adjusted p can be below 0.05 from 7 seeds" in x for x in result.notes
    )


@pytest.mark.parametrize(
    ("seeds", "said"),
    [
        (1, "No claim about strategies follows"),
        (3, "p cannot be below 0.25. p < 0.05 needs at least 6 seeds"),
        (5, "p cannot be below 0.0625."),
    ],
)
def test_what_few_seeds_cannot_show_is_stated(make_run, seeds, said):
    runs = seeds_of(make_run, "er", lambda s: FORGETS, range(seeds))
    runs += seeds_of(make_run, "m2distill", lambda s: KEEPS, range(seeds))
    result = compare(runs, metrics=["final"])
    assert any(said in note for note in result.notes)
    assert (result.comparisons[0].p is None) == (seeds == 1)


def test_seeds_without_a_partner_are_reported_and_not_used(make_run):
    runs = seeds_of(make_run, "er", lambda s: FORGETS, (0, 1))
    runs += seeds_of(make_run, "m2distill", lambda s: KEEPS, (1, 2))
    result = compare(runs)
    assert {x.seeds for x in result.comparisons} == {(1,)}
    assert "m2distill: seeds 0, 2 have no partner in er and are not used." in result.notes


def test_identical_runs_differ_by_nothing_at_all(make_run):
    runs = [make_run(f"{name}-{seed}", "er", seed, FORGETS) for name in "ab" for seed in (0, 1, 2)]
    named = [f"{run.name[0]}={run}" for run in runs]
    for x in compare(named).comparisons:
        assert (x.difference, x.interval_95, x.per_seed) == (0, (0, 0), (0, 0, 0))
        assert (x.effect_size, x.p) == (None, 1)


# --- what may not be compared


@pytest.mark.parametrize(
    ("options", "wins", "said"),
    [
        ({}, three_stages((9, 9, 9), (9, 9), (9,))[:2], "has tasks .* evaluate both alike"),
        ({}, [{2: 5}, {2: 5, 4: 5}, {2: 5, 4: 5, 7: 5}], "learned the tasks in other stages"),
        ({"starts": (40, *range(42, 51))}, KEEPS, "has start states 10 values with 50, .* 10 values with 41;"),
        ({"episodes": 9}, KEEPS, "has start states|has episodes per task 9, .* has 10;"),
        ({"sampling": "stochastic"}, KEEPS, "has sampling stochastic, .* has mode;"),
        ({"max_steps": 300}, KEEPS, "has max_steps 300, .* has 600;"),
    ],
)
def test_runs_that_were_not_evaluated_alike_are_rejected(make_run, options, wins, said, capsys):
    runs = [make_run("er", "er", 0, KEEPS), make_run("m2distill", "m2distill", 0, wins, **options)]
    with pytest.raises(UserError, match=said):
        compare(runs)
    assert main.run(["compare", *map(str, runs)]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_other_assets_are_rejected(make_run):
    runs = [make_run(name, name, 0, KEEPS) for name in ("er", "m2distill")]
    evaluations = [read_json(run / "evaluation.json") for run in runs]
    for run, evaluation, content in zip(runs, evaluations, "ab", strict=True):
        (run / "evaluation.json").write_text(json.dumps(evaluation | {"assets_content": {SUITE: content}}))
    with pytest.raises(UserError, match=f"has content of assets {SUITE}: b, .* has {SUITE}: a;"):
        compare(runs)
    for stage in evaluations[1]["stages"]:
        for task in stage["tasks"]:
            task["assets"] = "libero"
    (runs[1] / "evaluation.json").write_text(json.dumps(evaluations[1]))
    with pytest.raises(UserError, match="has assets libero, "):
        compare(runs)


def test_groups_that_cannot_be_paired_are_rejected(make_run, tmp_path):
    a, b, c = make_run("a", "er", 0, KEEPS), make_run("b", "er", 0, KEEPS), make_run("c", "m2distill", 1, KEEPS)
    with pytest.raises(UserError, match=r"a and .*b both are er with seed 0, expected each seed once; .*NAME=FOLDER"):
        compare([a, b, c])
    with pytest.raises(UserError, match=r"er has seeds \[0\] and m2distill \[1\], expected a common one"):
        compare([a, c])
    with pytest.raises(UserError, match="give the runs of at least two strategies"):
        compare([a])
    with pytest.raises(UserError, match="unknown group 'm2distil'; did you mean 'm2distill'"):
        compare([a, c], candidates=["m2distil"])
    with pytest.raises(UserError, match="unknown metric 'nbd'; did you mean 'nbt'"):
        compare([f"x={a}", f"y={b}"], metrics=["nbd"])
    (b / "evaluation.json").unlink()
    with pytest.raises(UserError, match=f"{b} has no evaluation.json; run: m2distill evaluate {b}"):
        compare([a, b])
    with pytest.raises(UserError, match="nowhere does not exist"):
        compare([a, tmp_path / "nowhere"])
    with pytest.raises(UserError, match="no run folder given"):
        compare([])


def test_damaged_episodes_are_rejected(make_run):
    runs = [make_run(name, name, 0, KEEPS) for name in ("er", "m2distill")]
    evaluation = read_json(runs[1] / "evaluation.json")
    evaluation["stages"][2]["tasks"][0]["runs"][0]["state"] = 41  # twice
    (runs[1] / "evaluation.json").write_text(json.dumps(evaluation))
    with pytest.raises(UserError, match="has other episodes after stage 3 of .*run again: m2distill evaluate"):
        compare(runs)
    del evaluation["sampling"]
    (runs[1] / "evaluation.json").write_text(json.dumps(evaluation))
    with pytest.raises(UserError, match="lacks what a comparison needs"):
        compare(runs)


def test_seeds_of_machines_with_other_number_formats_are_one_group(make_run):
    """`precision: auto` becomes bfloat16 on one machine and float32 on another; pairs stay within a seed."""
    formats = [dataclasses.replace(debug(), precision=name) for name in ("bfloat16", "float32")]
    wins = {"er": FORGETS, "m2distill": KEEPS}
    runs = [make_run(f"{n}-{seed}", n, seed, wins[n], config=formats[seed]) for seed in (0, 1) for n in wins]
    result = compare(runs, resamples=100)
    assert result.groups == {"er": (0, 1), "m2distill": (0, 1)}
    assert "Number formats of the training: bfloat16, seeds 0; float32, seeds 1." in result.notes
    assert not any("Runs of the same seed were trained" in note for note in result.notes)

    other = make_run("other", "m2distill", 1, KEEPS, config=formats[0])
    mixed = compare([*runs[:3], other], resamples=100)
    assert "Runs of the same seed were trained in different number formats." in mixed.notes

    config = json.loads((other / "config.json").read_text())
    for damaged in (None, ["bfloat16"], 7):
        (other / "config.json").write_text(json.dumps({**config, "precision": damaged}))
        assert any(f"{damaged}, seeds 1" in note for note in compare([*runs[:3], other], resamples=100).notes)
    (other / "config.json").write_text(json.dumps(config))
    both = compare([runs[1], runs[3], other], resamples=100)  # seed 1 in both formats: the format is what differs
    assert sorted(map(sorted, both.groups.values())) == [[0, 1], [1]]


def test_settings_of_one_strategy_are_groups_of_their_own(make_run):
    other = dataclasses.replace(debug(), optim=dataclasses.replace(debug().optim, budget=7))
    runs = [make_run(f"short-{s}", "er", s, KEEPS) for s in (0, 1)]
    runs += [make_run(f"long-{s}", "er", s, KEEPS, config=other) for s in (0, 1)]
    assert compare(runs).groups == {"er (short)": (0, 1), "er (long)": (0, 1)}


def test_other_demonstrations_of_the_same_seed_are_noted(make_run):
    runs = [make_run(name, name, 0, KEEPS, key=name) for name in ("er", "m2distill")]
    assert any("different demonstrations" in note for note in compare(runs).notes)
