"""Strategies beyond the paper: stored mixtures, subspaces, replayed tokens and interpolated weights."""

import dataclasses
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from strategy_samples import SPEC, make_policy, make_samples, second_stage, strategy_with

from m2distill_policy.checkpoint import load_checkpoint
from m2distill_policy.models.batch import to_model_input
from m2distill_training.config import ConfigError
from m2distill_training.data.sample_rng import SampleRng
from m2distill_training.data.store import open_store
from m2distill_training.data.window_tokens import window_tokens
from m2distill_training.data.windows import DemoSubset, Windows
from m2distill_training.engine.continue_run import learn
from m2distill_training.engine.stored_mixtures import mixtures_path
from m2distill_training.engine.train import train
from m2distill_training.losses.distill import gaussians, policy_kl, sample_actions
from m2distill_training.losses.subspace import confident_policy_kl, subspace, subspace_distance
from m2distill_training.presets import debug
from m2distill_training.runs.records import RunError
from m2distill_training.runs.run_folder import RunFolder
from m2distill_training.strategies.base import StageContext
from m2distill_training.strategies.configs import TERMS


def quick(strategy: str, **values):
    config = debug().with_strategy(strategy, **values)
    optim = dataclasses.replace(config.optim, budget=3, warmup_steps=1)
    return dataclasses.replace(config, save_every=2, optim=optim)


@pytest.fixture
def files(libero_file):
    texts = ("pick up the milk", "open the drawer", "close it")
    return [libero_file(f"{i}", instruction=text, seed=i, demos=4) for i, text in enumerate(texts)]


@pytest.fixture
def batches(libero_file):
    return second_stage(libero_file)


def mixture_of(policy, windows: Windows) -> dict[str, torch.Tensor]:
    """The mixtures of a policy in evaluation mode, one forward pass over all windows."""
    batch = windows.gather(torch.arange(len(windows)).numpy())
    with torch.no_grad():
        dist = policy.eval()(to_model_input(batch["images"], batch["joint"], batch["gripper"], batch["text"])).dist
    return {"logits": dist.mixture_distribution.logits, "mean": gaussians(dist).loc, "std": gaussians(dist).scale}


def test_tokens_of_windows_are_those_of_a_forward_pass(batches):
    policy = make_policy().eval()
    batch = batches.replay.gather(torch.arange(len(batches.replay)).numpy())
    with torch.no_grad():
        expected = policy.encode(to_model_input(batch["images"], batch["joint"], batch["gripper"], batch["text"]))
    found = window_tokens(policy, batches.replay)
    assert list(found) == list(expected)
    torch.testing.assert_close(found, dict(expected))


@pytest.mark.parametrize("choice", ["random", "coverage"])
def test_only_the_demos_of_a_subset_are_replayed(choice, libero_file):
    store = open_store(libero_file(demos=8), SPEC, "before")
    text = torch.zeros(SPEC.text_width).numpy()
    for seed in range(5):
        order = DemoSubset(store, text, (1, 4, 6)).replay_order(choice, seed, 0)
        assert sorted(order) == [1, 4, 6]
    assert list(DemoSubset(store, text, numbers=tuple(range(8, 0, -1))).replay_order(choice, 0, 0)) == list(range(8))


# Interpolated weights


def test_saved_weights_lie_between_those_of_the_stage_and_the_previous_ones():
    strategy, previous, policy = strategy_with("average"), make_policy(0, "batch"), make_policy(1, "batch")
    strategy.begin_task(policy, None)
    assert torch.equal(strategy.saved_weights(policy.state_dict())["text.weight"], policy.text.weight)
    strategy = type(strategy)(dataclasses.replace(strategy.config, coefficient=0.25))
    strategy.begin_task(policy, previous)
    before = {name: x.clone() for name, x in policy.state_dict().items()}
    saved = strategy.saved_weights(policy.state_dict())
    for name, x in policy.state_dict().items():
        assert torch.equal(x, before[name]), name  # the training continues from its own weights
        expected = 0.25 * x + 0.75 * previous.state_dict()[name] if x.is_floating_point() else x
        torch.testing.assert_close(saved[name], expected)


@pytest.mark.parametrize(("base", "weights"), [("m2distill", {}), ("er", dict.fromkeys(TERMS, 0.0))])
def test_average_saves_the_interpolation_of_what_another_strategy_learns(base, weights, files, tmp_path):
    plain = train(quick(base), files[:2], tmp_path / base)
    config = dataclasses.replace(quick("average", coefficient=0.3, **weights), curve_points=1)
    run = train(config, files[:2], tmp_path / "average")
    first, learned = (load_checkpoint(plain.checkpoint(stage)).state_dict for stage in (1, 2))
    assert all(torch.equal(x, first[name]) for name, x in load_checkpoint(run.checkpoint(1)).state_dict.items())
    saved = load_checkpoint(run.checkpoint(2)).state_dict
    for name, x in saved.items():
        torch.testing.assert_close(x, torch.lerp(first[name], learned[name], 0.3), msg=name)
    assert any(not torch.equal(x, first[name]) for name, x in saved.items())
    point = load_checkpoint(run.curve(2)[-1]).state_dict
    assert all(torch.equal(x, saved[name]) for name, x in point.items())


# Subspaces and confident actions


def test_a_subspace_holds_the_directions_in_which_a_token_varies():
    token = torch.zeros(3, 2, 4)
    token[:, :, 0] = torch.tensor([[1.0, -2.0], [0.5, 3.0], [-1.0, 0.0]])
    token[:, :, 2] = torch.tensor([[0.1, 0.2], [-0.3, 0.0], [0.0, 0.1]])
    basis = subspace(token, rank=3)
    projection = basis @ basis.mT
    torch.testing.assert_close(projection, torch.diag(torch.tensor([1.0, 0.0, 1.0, 0.0])))  # rank 2, not 3
    assert subspace(token, rank=1).shape == (4, 1)
    assert subspace(token, rank=1)[0].abs().item() > 0.99


def test_a_subspace_distance_counts_differences_within_either_subspace():
    teacher = torch.zeros(2, 1, 3)
    teacher[:, 0, 0] = torch.tensor([1.0, 2.0])
    student = teacher.clone()
    student[:, 0, 0] += 0.5  # within the subspaces of both
    size = torch.tensor(2.0)
    assert subspace_distance(student, teacher, 2, size).item() == pytest.approx(0.25 / 2)
    student = torch.zeros(2, 1, 3)
    student[:, 0, 1] = torch.tensor([1.0, 2.0])  # a rotated subspace: each one sees its own token alone
    assert subspace_distance(student, teacher, 2, size).item() == pytest.approx((2.5 + 2.5) / 2 / 2)
    student.requires_grad_()
    subspace_distance(student, teacher, 2, size).backward()
    assert student.grad[:, 0, 1].abs().sum() > 0


def test_the_divergence_on_confident_actions_is_that_of_the_likeliest_ones():
    student, teacher, samples = make_policy(1), make_policy(0), make_samples()
    ours, theirs = student(samples.inputs).dist, teacher(samples.inputs).dist
    rng = SampleRng.of_whole_batch(0, len(samples.action))
    drawn = sample_actions(theirs, rng.uniform(4, 8), rng.normal(4, 8, 7))  # (8, B, T, 7)
    torch.testing.assert_close(confident_policy_kl(ours, theirs, drawn, 1.0), policy_kl(ours, theirs, drawn))
    with torch.no_grad():
        density, gap = theirs.log_prob(drawn), theirs.log_prob(drawn) - ours.log_prob(drawn)
        expected = [
            gap[density[:, b, t].argsort(descending=True)[:2], b, t]
            for b in range(len(samples.action))
            for t in range(4)
        ]
    torch.testing.assert_close(confident_policy_kl(ours, theirs, drawn, 0.25).detach(), torch.cat(expected).mean())


def test_spread_replaces_the_distances_and_the_divergence_of_m2distill():
    student, teacher, samples = make_policy(1), make_policy(0), make_samples()
    strategy = strategy_with("spread", unit="teacher", rank=3, confident=0.5, kl_samples=4)
    strategy.begin_task(student, teacher)
    losses = strategy.loss(student, samples)
    with torch.no_grad():
        s, t = student(samples.inputs), teacher.eval()(samples.inputs)
        views = [
            subspace_distance(s.latents[name], t.latents[name], 3, strategy.sizes[name])
            for name in ("agentview", "wrist")
        ]
        rng = SampleRng.of_whole_batch(0, len(samples.action))
        drawn = sample_actions(t.dist, rng.uniform(4, 4), rng.normal(4, 4, 7))
    torch.testing.assert_close(losses["image"].detach(), views[0] + views[1])
    torch.testing.assert_close(losses["policy"].detach(), confident_policy_kl(s.dist, t.dist, drawn, 0.5))
    with torch.autocast("cpu", torch.bfloat16):
        assert strategy.loss(student, make_samples())["text"].isfinite()


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"rank": 0}, "spread.rank is 0, allowed at least 1"),
        ({"confident": 0.0}, "spread.confident is 0.0, allowed 0.01 to 1"),
        ({"image": -1.0}, "spread.image is -1.0, allowed at least 0"),
        ({"kl_direction": "student_teacher"}, "unknown spread.kl_direction 'student_teacher'"),
        ({"on": "relabelled"}, "spread.on is 'relabelled', but this strategy has current and replayed samples only"),
    ],
)
def test_wrong_settings_of_spread_are_named(value, message):
    with pytest.raises(ConfigError) as raised:
        strategy_with("spread", **value)
    assert message in str(raised.value)


def test_a_coefficient_is_a_share():
    with pytest.raises(ConfigError, match=r"average.coefficient is 1.5, allowed 0 to 1"):
        debug().with_strategy("average", coefficient=1.5)


# Stored mixtures


@pytest.mark.parametrize("on", ["replay", "both", "current"])
def test_stored_compares_replayed_samples_with_the_stored_mixtures(on, batches):
    student, teacher, learner = make_policy(1), make_policy(0), make_policy(2)
    strategy = strategy_with("stored", on="both", policy_on=on, kl_samples=4)
    stored = mixture_of(learner, batches.replay)
    strategy.context = StageContext(strategy.context.instructions, make_samples, batches.replay, lambda: stored)
    strategy.begin_task(student, teacher)
    losses = strategy.loss(student, batches.samples(0))
    samples = batches.samples(0)
    n, B = samples.n_current, len(samples.action)
    rows = {"replay": range(n, B), "both": range(B), "current": range(n)}[on]
    rng = SampleRng(samples.rng.seed, samples.rng.rows, samples.rng.total)
    with torch.no_grad():
        uniform, normal = rng.uniform(4, 4), rng.normal(4, 4, 7)
        gaps = []
        for row in rows:
            reference = (teacher if row < n else learner).eval()
            one = {name: x[row : row + 1] for name, x in samples.inputs.items() if name != "images"}
            one["images"] = {name: x[row : row + 1] for name, x in samples.inputs["images"].items()}
            theirs, ours = reference(one).dist, student(one).dist
            gaps.append(policy_kl(ours, theirs, sample_actions(theirs, uniform[[row]], normal[[row]])))
    torch.testing.assert_close(losses["policy"].detach(), torch.stack(gaps).mean(), rtol=1e-4, atol=1e-4)
    with torch.no_grad():
        gap = student.encode(samples.inputs)["text"] - teacher.eval().encode(samples.inputs)["text"]
    torch.testing.assert_close(losses["text"].detach(), gap.square().mean())  # the last teacher's, as in m2distill


def of_checkpoint(run: RunFolder, stage: int, store, demo: int, text) -> dict[str, torch.Tensor]:
    policy = load_checkpoint(run.checkpoint(stage)).build_policy()
    return mixture_of(policy, Windows([DemoSubset(store, text, (demo,))], debug().history))


def test_every_task_keeps_the_mixtures_of_the_stage_that_learned_it(files, tmp_path):
    run = train(quick("stored"), files, tmp_path / "run")
    config = quick("stored")
    for task in (0, 1):
        checkpoint = load_checkpoint(run.checkpoint(task + 1))
        store = open_store(files[task], checkpoint.spec, config.pairing)
        [demo] = load_checkpoint(run.checkpoint(3)).metrics["replayed_demos"][store.instruction]
        found, text = load_file(mixtures_path(run, task)), checkpoint.instructions[store.instruction]
        for stage in (1, 2, 3)[task:]:
            expected = of_checkpoint(run, stage, store, demo, text)
            same = all(torch.allclose(found[f"{demo}.{part}"], x, atol=1e-5) for part, x in expected.items())
            assert same == (stage == task + 1), (task, stage)
    assert not mixtures_path(run, 2).exists()


def test_learn_stores_the_mixtures_of_a_run_of_another_strategy_and_repairs_them(files, tmp_path):
    run = train(quick("m2distill"), files[:2], tmp_path / "run")
    shutil.copytree(run.path, tmp_path / "again")
    again = RunFolder(tmp_path / "again")
    assert learn(run.path, files[2], strategy="stored") == 3

    def stop(progress):
        raise MemoryError

    with pytest.raises(MemoryError):
        learn(again.path, files[2], strategy="stored", on_step=stop)
    path = mixtures_path(again, 0)
    whole = path.read_bytes()
    path.write_bytes(whole[:-8])
    with pytest.raises(RunError, match=r"mixtures.safetensors, which .* cannot be read .* remove it and repeat"):
        learn(again.path, files[2], strategy="stored")
    other = {name: x[:1] for name, x in load_file(mixtures_path(run, 0)).items()}
    save_file(other, path, {"schema": "1"})
    with pytest.raises(RunError, match=r"does not hold the mixtures of demonstration \d+; remove it and repeat"):
        learn(again.path, files[2], strategy="stored")
    path.unlink()
    assert learn(again.path, files[2], strategy="stored") == 3
    assert path.read_bytes() == whole == mixtures_path(run, 0).read_bytes()
    assert load_checkpoint(again.checkpoint(3)).id == load_checkpoint(run.checkpoint(3)).id


# Replayed tokens


def latent_replay(batches, student, teacher, name="latent_replay", **values):
    strategy = strategy_with(name, **values)
    strategy.context = StageContext(strategy.context.instructions, make_samples, batches.replay)
    strategy.begin_task(student, teacher)
    return strategy


@pytest.mark.parametrize("norm", ["group", "batch"])
def test_latent_recall_has_the_losses_of_recall_with_frozen_encoders(norm, batches):
    teacher, student = make_policy(0, norm), make_policy(1, norm)
    student.image_encoders.load_state_dict(teacher.image_encoders.state_dict())
    values = {"on": "both", "policy_on": "replay"}
    latent = latent_replay(batches, student.train(), teacher, "latent_recall", **values)
    losses = latent.loss(student, batches.samples(0))
    plain = strategy_with("recall", **values)
    plain.begin_task(student, teacher)
    expected = plain.loss(student.eval(), batches.samples(0))
    for name in ("bc", "text", "extra", "policy"):
        torch.testing.assert_close(losses[name], expected[name], rtol=1e-4, atol=1e-5, msg=name)
    losses["loss"].backward()
    assert all(p.grad is None for p in student.image_encoders.parameters())


@pytest.mark.parametrize("norm", ["group", "batch"])
def test_latent_replay_has_the_losses_of_m2distill_with_frozen_encoders(norm, batches):
    teacher, student = make_policy(0, norm), make_policy(1, norm)
    student.image_encoders.load_state_dict(teacher.image_encoders.state_dict())
    latent = latent_replay(batches, student.train(), teacher, policy_on="replay")
    losses = latent.loss(student, batches.samples(0))
    plain = strategy_with("m2distill", on="both", policy_on="replay")
    plain.begin_task(student, teacher)
    expected = plain.loss(student.eval(), batches.samples(0))
    assert "image" not in losses
    for name in ("bc", "text", "extra", "policy"):
        torch.testing.assert_close(losses[name], expected[name], rtol=1e-4, atol=1e-5, msg=name)
    without = latent_replay(batches, student.train(), teacher, text=0.0, extra=0.0, policy=0.0)
    losses = without.loss(student, batches.samples(0))
    assert losses.keys() == {"loss", "bc"}
    torch.testing.assert_close(losses["bc"], expected["bc"], rtol=1e-4, atol=1e-5)


def test_a_gradient_step_of_latent_replay_shows_the_image_network_the_current_samples_once(batches):
    teacher, student = make_policy(0), make_policy(0)
    strategy = latent_replay(batches, student, teacher)
    images = []
    for policy in (strategy.teacher, student):
        policy.image_encoders[0].register_forward_hook(lambda module, inputs, output: images.append(len(inputs[0])))
    losses = strategy.loss(student, batches.samples(0))
    losses["loss"].backward()
    assert sum(images) == debug().optim.batch_size
    assert all(p.grad is None for p in student.image_encoders.parameters())
    assert student.joint.weight.grad.abs().sum() > 0


def test_image_encoders_stay_those_of_the_first_stage(files, tmp_path):
    run = train(quick("latent_replay"), files, tmp_path / "run")
    first, *later = (load_checkpoint(run.checkpoint(stage)).state_dict for stage in (1, 2, 3))
    for weights in later:
        for name, x in weights.items():
            frozen = name.startswith("image_encoders")
            assert torch.equal(x, first[name]) or not frozen, name
        assert not torch.equal(weights["joint.weight"], first["joint.weight"])
    er = train(quick("er"), files[:1], tmp_path / "er")  # the first stage itself learns everything
    learned = load_checkpoint(er.checkpoint(1)).state_dict
    assert all(torch.equal(x, learned[name]) for name, x in first.items())
