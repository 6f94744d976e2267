"""The memory of earlier tasks over a hundred of them."""

import itertools

import numpy as np
import pytest

from m2distill_training.data.replay import choose_demos, choose_memory, random_order

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
