"""The strategies: registry, replay, EWC and PackNet."""

import copy

import pytest
import torch
from strategy_samples import (
    epoch_of,
    ewc,
    learn,
    libero_fisher,
    make_policy,
    make_samples,
    strategy_named,
)

from m2distill_training.losses.bc import bc_loss
from m2distill_training.strategies import find_strategy
from m2distill_training.strategies.packnet import OURS, packed_weights, smallest
from m2distill_training.strategies.registry import BUILT_IN, config_class


@pytest.mark.parametrize("name", BUILT_IN)
def test_the_configuration_known_without_an_import_is_the_one_of_the_class(name):
    assert find_strategy(name).Config is config_class(name)


@pytest.mark.parametrize(("name", "replays"), [("finetune", False), ("er", True), ("multitask", False)])
def test_behaviour_cloning_on_the_whole_batch_with_or_without_replay(name, replays):
    policy, samples, strategy = make_policy(), make_samples(), strategy_named(name)
    strategy.begin_task(policy, make_policy(1))
    losses = strategy.loss(policy, samples)
    expected = bc_loss(policy(samples.inputs).dist, samples.action)
    torch.testing.assert_close(losses["loss"], expected)
    assert strategy.uses_replay is replays


def test_ewc_keeps_one_decayed_sum_of_fisher_information_and_leaves_the_policy_alone():
    policy, epoch = make_policy(norm="batch"), epoch_of(5, 3)
    before = {name: x.clone() for name, x in policy.state_dict().items()}
    fisher, strategy = libero_fisher(policy, epoch), ewc(decay=0.5)
    strategy.begin_task(policy, None)
    strategy.end_task(policy, epoch)
    torch.testing.assert_close(strategy.memory, fisher)
    strategy.end_task(policy, epoch)  # a second step with the same outcome
    torch.testing.assert_close(strategy.memory, {name: 1.5 * f for name, f in fisher.items()})
    assert all(torch.equal(x, before[name]) for name, x in policy.state_dict().items())
    assert sum(f.sum().item() for f in fisher.values()) > 0


def test_ewc_holds_the_weights_that_mattered_where_they_were():
    previous, policy, samples = make_policy(0), make_policy(0), make_samples()
    strategy = ewc(weight=3.0)
    strategy.begin_task(previous, None)
    assert set(strategy.loss(previous, samples)) == {"loss", "bc"}
    strategy.end_task(previous, epoch_of(5))
    strategy.begin_task(policy, previous)
    assert strategy.loss(policy, samples)["ewc"].item() == 0
    with torch.no_grad():
        policy.joint.bias[2] += 0.5
        policy.text.weight[1, 3] -= 2.0
    losses = strategy.loss(policy, samples)
    by_hand = 0.25 * strategy.memory["joint.bias"][2] + 4.0 * strategy.memory["text.weight"][1, 3]
    torch.testing.assert_close(losses["ewc"].detach(), by_hand)
    torch.testing.assert_close(losses["loss"], losses["bc"] + 3 * losses["ewc"])


def test_smallest_by_hand():
    size = torch.tensor([[4.0, 1.0, 2.0], [9.0, 2.0, 0.5]])
    ours = torch.tensor([[True, True, True], [True, True, False]])
    assert smallest(size, ours, 0.2).tolist() == [[False, True, False], [False, False, False]]  # 1 of 5
    assert smallest(size, ours, 0.4).tolist() == [[False, True, True], [False, True, False]]  # 2 of 5, and a tie
    assert not smallest(size, ours, 0.05).any()
    assert not smallest(size, torch.zeros_like(ours), 0.5).any()


def test_packnet_never_moves_what_an_earlier_step_kept_and_packs_nothing_but_weights():
    policy = make_policy(norm="batch").train()
    initial = {name: x.clone() for name, x in policy.state_dict().items()}
    first = strategy_named("packnet")
    first.begin_task(policy, None)
    learn(first, policy)
    after_first = copy.deepcopy(policy.state_dict())
    kept = {name: state == OURS for name, state in first.memory.items()}
    assert set(kept) == set(packed_weights(policy))
    for name, mask in kept.items():
        assert mask.sum() == mask.numel() - round(0.75 * mask.numel()), name
        assert (after_first[name][~mask] == 0).all(), name
        assert (after_first[name][mask] != initial[name][mask]).any(), name
    second = strategy_named("packnet")
    second.memory = {name: state.clone() for name, state in first.memory.items()}
    second.begin_task(policy, policy)
    learn(second, policy)
    for name, x in policy.state_dict().items():
        if name not in kept:
            assert torch.equal(x, initial[name]), name
            continue
        assert torch.equal(x[kept[name]], after_first[name][kept[name]]), name
        of_second = second.memory[name] == OURS
        free = int((~kept[name]).sum())
        assert of_second.sum() <= free - round(0.75 * free), name  # fewer where equal values went together
        # what serves the first step's task, the second's weights taken out, is the network after the first step
        assert torch.equal(torch.where(of_second, 0, x), after_first[name]), name
