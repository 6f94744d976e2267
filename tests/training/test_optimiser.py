"""The optimiser is torch's, bit by bit, and neither it nor a checkpoint imports torch's compiler."""

import subprocess
import sys

import pytest
import torch

from m2distill_training.engine.optimiser import AdamW


@pytest.mark.parametrize("fused", [False, True])
def test_steps_and_states_are_those_of_torch_bit_by_bit(fused):
    networks, optimisers = [], []
    for kind in (AdamW, torch.optim.AdamW):
        torch.manual_seed(0)
        networks.append(torch.nn.Linear(5, 3))
        optimisers.append(kind(networks[-1].parameters(), lr=0.1, betas=(0.8, 0.95), weight_decay=0.1, fused=fused))
    for step in range(4):
        x = torch.randn(7, 5, generator=torch.Generator().manual_seed(step))
        for network, optimiser in zip(networks, optimisers, strict=True):
            optimiser.zero_grad(set_to_none=True)
            assert network.weight.grad is None
            network(x).square().sum().backward()
            optimiser.step()
            optimiser.load_state_dict(optimiser.state_dict())
        ours, theirs = (optimiser.state_dict() for optimiser in optimisers)
        assert ours["param_groups"] == theirs["param_groups"]
        for number, state in theirs["state"].items():
            assert all(torch.equal(value, ours["state"][number][name]) for name, value in state.items())
    assert all(map(torch.equal, networks[0].parameters(), networks[1].parameters()))


@pytest.mark.slow
def test_neither_a_checkpoint_nor_the_optimiser_imports_the_compiler():
    """Its import takes 0.9 s of CPU at the start of every training, evaluation and node."""
    code = """
import sys
import torch
from pathlib import Path
import m2distill_policy
from m2distill_policy.checkpoint import load_checkpoint
from m2distill_policy.models import Policy
from m2distill_training.engine.optimiser import AdamW
loaded = load_checkpoint(Path(m2distill_policy.__file__).parent / "starter")
policy = Policy(loaded.model_config, loaded.spec)
policy.load_state_dict(loaded.state_dict)
optimiser = AdamW(policy.parameters(), fused=True)
sum(x.sum() for x in policy.parameters()).backward()
optimiser.step()
optimiser.zero_grad()
optimiser.load_state_dict(optimiser.state_dict())
print([name for name in ("torch._dynamo", "sympy") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
