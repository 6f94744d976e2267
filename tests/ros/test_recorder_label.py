"""The label of an episode is the instruction that the policy follows, and `keep` rejects what the import would drop."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from harness import KNOWN, START_LIMIT_S, Client, policy_node
from recorder_client import Recorder, recorder_node
from std_msgs.msg import String
from std_srvs.srv import Trigger

from m2distill_interfaces.msg import PolicyAction, PolicyStatus
from m2distill_policy.bringup.processes import NodeProcesses


@pytest.fixture(scope="module")
def directory(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("episodes")


@pytest.fixture(scope="module")
def nodes(checkpoint_path, directory, tmp_path_factory) -> Iterator[NodeProcesses]:
    """A policy with a recorder beside it."""
    described = [policy_node(checkpoint_path, autostart=True), recorder_node(checkpoint_path, directory)]
    with NodeProcesses(described, tmp_path_factory.mktemp("log")) as nodes:
        yield nodes
        nodes.check()


@pytest.fixture
def recorder(client, nodes) -> Iterator[Recorder]:
    client.wait_until_active()
    recorder = Recorder(client)
    recorder.wait_until_up()
    client.sensors.reset()
    yield recorder
    client.sensors.cancel()
    client.instruct("")
    client.wait_for_state(PolicyStatus.IDLE)
    recorder("discard")


def act(client: Client, instruction: str) -> None:
    """Let the policy act under an instruction."""
    client.instruct(instruction)
    before = len(client.of("policy/action"))
    client.wait(
        lambda: [a for a in client.of("policy/action")[before:] if a.instruction == instruction][5:], "its actions"
    )


def labelled(recorder: Recorder, text: str) -> None:
    """Wait until the label, which every answer names, has this text."""
    recorder.client.wait(lambda: text in recorder("success").message, f"the label {text}")


def test_an_episode_has_the_instruction_that_the_policy_follows_before_it(client, recorder, directory):
    """The text on the topic came before; a request to the policy is on no topic."""
    client.publish_instruction(KNOWN[1])
    client.wait(lambda: client.status.instruction == KNOWN[1], "another instruction")
    act(client, KNOWN[0])
    assert recorder("start").success
    labelled(recorder, f"instruction {KNOWN[0]!r}, which the policy follows")
    seen = len(client.of("policy/action"))
    client.wait(lambda: len(client.of("policy/action")) >= seen + 10, "actions")
    kept = recorder("keep")
    assert kept.success and f"instruction {KNOWN[0]!r}, which the policy follows" in kept.message, kept.message
    path = Path(kept.message.split()[1].rstrip(":"))
    assert f"instruction: {KNOWN[0]}" in (path / "metadata.yaml").read_text()


def test_what_the_policy_no_longer_follows_and_what_it_rejects_is_no_label(client, recorder):
    act(client, KNOWN[0])
    assert client.result(client.command_to("STOP"), "the stop").accepted
    client.wait(lambda: "no instruction yet" in recorder("start").message or not recorder("discard"), "the start")
    client.publish_instruction("sing a song")
    client.wait_for_state(PolicyStatus.IDLE, "unknown instruction 'sing a song'")
    rejected = recorder("keep")
    assert not rejected.success and "no instruction was received" in rejected.message
    act(client, KNOWN[1])
    labelled(recorder, f"instruction {KNOWN[1]!r}, which the policy follows")
    assert recorder("keep").success


def test_an_episode_in_which_the_policy_follows_two_instructions_is_not_kept(client, recorder):
    act(client, KNOWN[0])
    assert recorder("start").success
    labelled(recorder, repr(KNOWN[0]))
    for instruction in KNOWN:
        act(client, instruction)
    rejected = recorder("keep")
    assert not rejected.success and f"it has 2 instructions, {KNOWN[0]!r} and {KNOWN[1]!r}" in rejected.message
    assert recorder("failure").success and recorder("keep").success


def test_a_label_that_differs_from_what_the_policy_does_is_not_kept(client, recorder, directory):
    act(client, KNOWN[0])
    assert recorder("start").success
    act(client, KNOWN[0])
    (folder,) = (directory / "open").iterdir()
    recorder.command(
        "instruction fold the towel", lambda: "fold" in json.loads((folder / "labels.json").read_text())["instruction"]
    )
    rejected = recorder("keep")
    assert not rejected.success and "it has 2 instructions, " in rejected.message
    discarded = recorder("discard")
    assert discarded.success and "instruction 'fold the towel', as the operator labelled it" in discarded.message


def test_an_action_labels_the_episode_if_the_status_was_lost(client, checkpoint_path, tmp_path):
    """The actions are those of a publisher of this test: there is no policy, and no status."""
    actions = client.create_publisher(PolicyAction, "left/policy/action", 10)
    texts = client.create_publisher(String, "left/instruction", 10)
    node = replace(recorder_node(checkpoint_path, tmp_path / "episodes"), namespace="left")
    services = {name: client.create_client(Trigger, f"left/recorder/{name}") for name in ("start", "success")}
    with NodeProcesses([node], tmp_path / "log"):
        client.wait(lambda: actions.get_subscription_count() and texts.get_subscription_count(), "it", START_LIMIT_S)
        assert client.begin_episode(services["start"])

        def named(text: str, source: str) -> bool:
            answer = client.ask(services["success"], Trigger.Request(), "the label").message
            return f"instruction {text!r}, {source}" in answer

        def sent(publisher, message, text: str, source: str) -> bool:
            publisher.publish(message)  # the first ones are lost if the recorder has not yet discovered their publisher
            return named(text, source)

        hop, skip = String(data="hop"), PolicyAction(instruction="skip")
        client.wait(lambda: sent(texts, hop, "hop", "as sent; no policy has acknowledged it"), "the text on the topic")
        client.wait(lambda: sent(actions, skip, "skip", "which the policy follows"), "the instruction of the action")
        actions.publish(PolicyAction(instruction="jump"))
        assert named("skip", "which the policy follows")
    client.destroy_publisher(actions)
    client.destroy_publisher(texts)
