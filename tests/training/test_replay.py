"""The memory of earlier tasks over a hundred of them."""

import itertools

import numpy as np
import pytest

from m2distill_training.data.replay import (
    balanced_ids,
    choose_demos,
    choose_memory,
    coverage_order,
    grip_phases,
    random_order,
)

TASKS, DEMOS = 100, 50


def orders(tasks: int, seed: int, demos: int = DEMOS) -> list[list[int]]:
    return [random_order(demos, seed, task) for task in range(tasks)]


def memories(per_task: int, total: int, seed: int = 0, learned: int = DEMOS) -> list[list[tuple[int, ...]]]:
    """The memory before task 1, 2, ... 100 is learned."""
    order = orders(TASKS, seed)
    return [choose_memory(order[:k], [learned] * k, per_task, total, seed) for k in range(1, TASKS + 1)]


def sizes(memory: list[tuple[int, ...]]) -> list[int]:
    return [len(demos) for demos in memory]


def test_a_budget_per_task_grows_by_exactly_that_and_never_changes_a_choice():
    after = memories(per_task=5, total=0)
    assert [sum(sizes(memory)) for memory in after] == [5 * k for k in range(1, TASKS + 1)]
    assert all(memory == after[-1][: len(memory)] for memory in after)
    assert after[-1][7] == choose_demos(DEMOS, 5, seed=0, task=7)


@pytest.mark.parametrize("total", [1, 30, 250])
def test_a_total_budget_is_never_exceeded_and_shared_out_evenly(total):
    for k, memory in enumerate(memories(per_task=DEMOS, total=total), start=1):
        assert sum(sizes(memory)) == min(total, DEMOS * k)
        assert max(sizes(memory)) - min(sizes(memory)) <= 1


def test_a_demo_once_given_up_never_comes_back():
    after = memories(per_task=10, total=30)
    for before, now in itertools.pairwise(after):
        for task, demos in enumerate(before):
            assert set(now[task]) <= set(demos)


def test_the_same_seed_keeps_the_same_and_another_seed_others():
    assert memories(5, 30) == memories(5, 30)
    assert memories(5, 30)[-1] != memories(5, 30, seed=1)[-1]


@pytest.mark.slow
def test_which_tasks_keep_a_place_is_uniform():
    """30 places for 100 tasks, 400 seeds: 120 expected for each task, standard deviation 9.2."""
    kept = np.sum(
        [sizes(choose_memory(orders(TASKS, seed, 4), [4] * TASKS, 4, 30, seed)) for seed in range(400)], axis=0
    )
    assert np.abs(kept - 120).max() < 37


def test_only_learned_demos_are_kept():
    memory = choose_memory(orders(3, seed=3), [10, 2, 10], per_task=5, total=0, seed=3)
    assert sizes(memory) == [5, 2, 5]
    for task, (demos, n) in enumerate(zip(memory, (10, 2, 10), strict=True)):
        assert set(demos) <= set(choose_demos(DEMOS, n, seed=3, task=task))


def test_coverage_takes_the_middle_first_and_then_what_is_farthest():
    """Five demos whose single joint moves from 0 to an end; the demos differ in length, which does not count."""
    ends = {0: 0.0, 1: 1.0, 2: 5.5, 3: 9.0, 4: 4.0}
    joints = [np.linspace(0, end, 10 + i)[:, None] for i, end in ends.items()]
    assert coverage_order(joints) == [4, 3, 0, 2, 1]  # mean 3.9; then 5, 4, 1.5 and 1 from the nearest chosen one
    assert coverage_order(joints[:1]) == [0]
    alike = coverage_order([np.zeros((4, 2))] * 3)
    assert sorted(alike) == [0, 1, 2]


def test_coverage_is_wider_than_chance():
    """Demos that differ in two ways, such as the place of an object on a table."""

    def reach(ends, chosen) -> float:
        """The largest distance of any demo from the nearest chosen one."""
        return max(min(np.linalg.norm(end - ends[i]) for i in chosen) for end in ends)

    covered, chance = [], []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        ends = rng.uniform(-1, 1, (40, 2)) @ np.linalg.qr(rng.normal(size=(7, 2)))[0].T
        covered.append(reach(ends, coverage_order([np.linspace(np.zeros(7), end, 30) for end in ends])[:5]))
        chance.append(reach(ends, rng.permutation(40)[:5]))
    assert np.mean(covered) < 0.8 * np.mean(chance)


def test_a_phase_ends_where_the_gripper_is_commanded_the_other_way():
    assert grip_phases(np.array([-1.0, -0.9, 0.8, 1.0, -1.0])).tolist() == [0, 0, 1, 1, 2]
    assert grip_phases(np.array([1.0, 1.0])).tolist() == [0, 0]


def test_balanced_batches_show_every_task_and_each_of_its_phases_equally_often():
    groups = [[np.arange(0, 50), np.arange(50, 55)], [np.arange(55, 60)]]
    batches = [balanced_ids(groups, 8, step, (0, 1, 1)) for step in range(25)]
    ids = np.concatenate(batches)
    counts = [[np.isin(ids, windows).sum() for windows in phases] for phases in groups]
    assert counts == [[50, 50], [100]]
    assert np.bincount(ids, minlength=60).tolist() == [1] * 50 + [10] * 5 + [20] * 5  # endless shuffles
    assert np.array_equal(batches[3], balanced_ids(groups, 8, 3, (0, 1, 1)))
    assert not np.array_equal(batches[3], balanced_ids(groups, 8, 3, (0, 2, 1)))
