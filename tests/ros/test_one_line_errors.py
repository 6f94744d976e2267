"""What a user or the machine has set wrongly ends a command or a node with one line that names the remedy."""

import os
import subprocess
import sys

import pytest
from harness import KNOWN, START_LIMIT_S, policy_node

from m2distill_policy.bringup.domain import own_domain
from m2distill_policy.bringup.processes import NodeProcesses

MODULE = "m2distill_training"
NODE = "m2distill_policy.ros.nodes.teleop_node"
NO_TEXT = b"\xff\xfe"
DOMAIN = "expected a whole number from 0 to 232; set it, or unset it for 0"
LOGS = "set ROS_LOG_DIR to a folder that can be written"
SECURED = {"ROS_SECURITY_ENABLE": "true", "ROS_SECURITY_STRATEGY": "Enforce"}
RUN = [MODULE, "run", "--arm", "ur_servo", "--checkpoint", "c"]
ALONE: dict[str, str] = {}  # in place of variables: a domain without other nodes
WRONG = {
    "domain of a node": ([NODE], {"ROS_DOMAIN_ID": "999"}, f"ROS_DOMAIN_ID is '999', {DOMAIN}"),
    "domain of a client": ([MODULE, "instruct"], {"ROS_DOMAIN_ID": "abc"}, f"ROS_DOMAIN_ID is 'abc', {DOMAIN}"),
    "domain of a system": (RUN, {"ROS_DOMAIN_ID": "-1"}, f"ROS_DOMAIN_ID is '-1', {DOMAIN}"),
    "logs of a node": ([NODE], {"ROS_LOG_DIR": "/proc/x"}, LOGS),
    "logs of a client": ([MODULE, "service"], {"ROS_LOG_DIR": "/dev/null"}, LOGS),
    "logs at home": ([MODULE, "service"], {"ROS_LOG_DIR": "", "ROS_HOME": "/proc/x"}, LOGS),
    "logs of a system": ([*RUN, "--log-dir", "/proc/x"], {}, "cannot write their logs into /proc/x"),
    "middleware of a client": (
        [MODULE, "instruct"],
        {"RMW_IMPLEMENTATION": "rmw_x"},
        "'rmw_x', which is not installed",
    ),
    "middleware of a system": (RUN, {"RMW_IMPLEMENTATION": "rmw_x"}, "'rmw_x', which is not installed"),
    "keystore": ([MODULE, "service"], SECURED, "ROS_SECURITY_KEYSTORE is '', which has no folder `enclaves`"),
    "instruction": ([MODULE, "instruct", NO_TEXT], {}, r"the argument b'\xff\xfe' is no UTF-8 text"),
    "service": ([MODULE, "service", NO_TEXT], {}, r"the argument b'\xff\xfe' is no UTF-8 text"),
    "option": ([*RUN, "--namespace", NO_TEXT], {}, "is no UTF-8 text"),
    "parameter": ([NODE, "--ros-args", "-p", b"frame_id:=" + NO_TEXT], {}, "is no UTF-8 text"),
    "another service": (
        [MODULE, "service", "nothing/here"],
        ALONE,
        "no service 'nothing/here', and no",
    ),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_the_last_line_names_the_remedy_and_there_is_no_traceback(wrong, tmp_path):
    words, variables, message = WRONG[wrong]
    with own_domain() as alone:
        ended = subprocess.run(
            [sys.executable, "-m", *words],
            env={**os.environ, **(alone if variables is ALONE else variables)},
            cwd=tmp_path,
            capture_output=True,
            timeout=START_LIMIT_S,
            check=False,
        )
    errors = ended.stderr.decode()
    assert ended.returncode == 2 and "Traceback" not in errors
    assert "error: " in errors.splitlines()[-1] and message in errors.splitlines()[-1]
    if "middleware" not in wrong:  # rcl prints a line of its own there
        assert len(errors.splitlines()) == 1


def test_an_answer_whose_reader_ends_early_is_no_error(client, checkpoint_path, tmp_path):
    """As in `m2distill instruct | head -1`, with a policy that knows two instructions."""
    with NodeProcesses([policy_node(checkpoint_path, autostart=True)], tmp_path):
        client.wait_until_active()
        words = [sys.executable, "-m", MODULE, "instruct"]
        with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as command:
            command.stdout.close()
            assert (command.stderr.read(), command.wait()) == (b"", 0)
        whole = subprocess.run(words, capture_output=True, text=True, check=True, timeout=START_LIMIT_S)
    assert whole.stdout.splitlines()[1:] == [f"  known instruction: {text}" for text in sorted(KNOWN)]
