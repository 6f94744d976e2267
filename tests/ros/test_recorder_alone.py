"""A recorder without a policy: what `keep` rejects, and what is logged."""

from harness import KNOWN, START_LIMIT_S
from recorder_client import Recorder, recorder_node

from m2distill_policy.bringup.processes import NodeProcesses


def test_an_episode_without_motion_or_with_a_gap_is_not_kept(client, checkpoint_path, tmp_path):
    with NodeProcesses([recorder_node(checkpoint_path, tmp_path / "episodes", max_gap_s=60.0)], tmp_path) as nodes:
        recorder = Recorder(client)
        recorder.wait_until_up()
        client.publish_instruction(KNOWN[0])
        client.wait(lambda: not recorder("start").success, "an episode")
        recorder.record(5, commands=False)
        rejected = recorder("keep")
        assert not rejected.success and "it has no message on gripper_cmd, twist_cmd" in rejected.message
        recorder.record(20)
        client.sizes["wrist"] = 0
        recorder.record(10)
        client.sizes["wrist"] = 64
        recorder.record(5)
        rejected = recorder("keep")
        assert not rejected.success and "wrist/image_raw has a gap of " in rejected.message
        assert recorder("failure").success and recorder("keep").success
        nodes.check()


def test_slow_topics_are_logged_once_and_only_while_recording(client, checkpoint_path, tmp_path):
    """As of a simulator in lockstep that waits for an instruction."""
    slow = client.create_timer(1.0, client.sense)
    with NodeProcesses([recorder_node(checkpoint_path, tmp_path / "episodes")], tmp_path) as nodes:
        recorder = Recorder(client)
        recorder.wait_until_up()
        log = nodes.log_path("recorder")

        def reports(count: int) -> None:
            seen = len(recorder.diagnostics_of())
            client.wait(lambda: len(recorder.diagnostics_of()) >= seen + count, "reports", START_LIMIT_S)

        reports(5)
        assert "arrives at" not in log.read_text()
        assert recorder("start").success
        reports(6)
        lines = [line for line in log.read_text().splitlines() if "arrives at" in line]
    client.destroy_timer(slow)
    assert len(lines) == 3, lines
