"""Two hosts on one machine: network namespaces with shared memory and names of their own, joined by a cable.

    python tests/ros/two_hosts.py --seconds 10     measures the latency of a policy node on another host, as JSON lines

Root is required, and iproute2. Delay, jitter and loss are those of cable.py. Nothing outlives the processes.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

ADDRESSES = {"robot": "10.213.7.1", "policy": "10.213.7.2"}
KEEPER = "mount -t tmpfs tmpfs /dev/shm && hostname {name} && ip link set lo up && echo up && exec sleep {limit_s}"
LIMIT_S = 600
ROBOT = Path(__file__).with_name("remote_robot.py")


class TwoHosts:
    """Context manager of the hosts "robot" and "policy".

    Args:
        tuned: Forget fragments of datagrams that lost one after 1 s, not after 30 s, in which they fill the buffer.
    """

    def __init__(self, tuned: bool = False):
        self._tuned = tuned
        self._keepers: dict[str, subprocess.Popen] = {}

    def __enter__(self) -> "TwoHosts":
        try:
            for name in ADDRESSES:
                command = [
                    "unshare",
                    "--net",
                    "--mount",
                    "--uts",
                    "sh",
                    "-c",
                    KEEPER.format(name=name, limit_s=LIMIT_S),
                ]
                keeper = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
                self._keepers[name] = keeper
                if keeper.stdout.readline() != "up\n":
                    raise OSError(keeper.stderr.read().strip() or "no namespace can be made here")
            for name in ADDRESSES if self._tuned else ():
                tune = self.command(name, ["sh", "-c", "echo 1 > /proc/sys/net/ipv4/ipfrag_time"])
                subprocess.run(tune, check=True)
            ends = [word for name, address in ADDRESSES.items() for word in (str(self._keepers[name].pid), address)]
            command = [sys.executable, str(Path(__file__).with_name("cable.py")), *ends]
            pipes = {name: subprocess.PIPE for name in ("stdin", "stdout", "stderr")}
            self._keepers["cable"] = cable = subprocess.Popen(command, text=True, **pipes)
            if cable.stdout.readline() != "ready\n":
                raise OSError(cable.stderr.read().strip().splitlines()[-1])
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_) -> None:
        for keeper in self._keepers.values():
            keeper.kill()
            keeper.wait()
            for pipe in filter(None, (keeper.stdin, keeper.stdout, keeper.stderr)):
                pipe.close()

    def command(self, host: str, command: Sequence[str]) -> list[str]:
        """Return a command line that runs `command` on a host."""
        return ["nsenter", "--target", str(self._keepers[host].pid), "--net", "--mount", "--uts", "--", *command]

    def set_cable(
        self,
        delay_ms: float = 0.0,
        jitter_ms: float = 0.0,
        loss_percent: float = 0.0,
        sides: Sequence[str] = tuple(ADDRESSES),
    ) -> None:
        """Set the cable for what the hosts `sides` send; what the other one sends has neither delay nor loss."""
        cable = self._keepers["cable"]
        for number, host in enumerate(ADDRESSES):
            values = (delay_ms, jitter_ms, loss_percent) if host in sides else (0, 0, 0)
            cable.stdin.write(" ".join(map(str, (number, *values))) + "\n")
            cable.stdin.flush()
            assert cable.stdout.readline() == "set\n"

    def environment(self, host: str, discovery: str) -> dict[str, str]:
        """Return the variables of a host: discovery by "multicast", or by the other host's address ("peers")."""
        (other,) = (address for name, address in ADDRESSES.items() if name != host)
        if discovery == "peers":
            return {"ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST", "ROS_STATIC_PEERS": other}
        return {"ROS_AUTOMATIC_DISCOVERY_RANGE": "SUBNET"}


def why_not() -> str:
    """Return why two hosts cannot be made here; empty if they can."""
    if missing := [name for name in ("unshare", "nsenter", "ip") if not shutil.which(name)]:
        return f"{', '.join(missing)} of util-linux and iproute2 not found"
    try:
        with TwoHosts() as hosts:
            hosts.set_cable(1.0)
    except OSError as error:
        return f"network namespaces are not permitted here ({error})"
    return ""


class RemotePolicy:
    """Context manager of a policy node on the host "policy" and of a robot on the host "robot".

    Args:
        hosts: The hosts.
        policy: Command line of the node.
        folder: Folder of the log.
        robot: Further arguments of remote_robot.py.
        variables: Environment of both.
        discovery: As for `TwoHosts.environment`.
    """

    def __init__(self, hosts, policy, folder: Path, robot=(), variables=None, discovery: str = "multicast"):
        self._hosts, self._policy, self._folder, self._robot_arguments = hosts, policy, folder, robot
        self._variables, self._discovery, self._stack = variables or {}, discovery, ExitStack()

    def __enter__(self) -> "RemotePolicy":
        def environment(host: str) -> dict[str, str]:
            return {**os.environ, **self._variables, **self._hosts.environment(host, self._discovery)}

        with self._stack:
            log = self._stack.enter_context((self._folder / "policy.log").open("wb"))
            robot = [sys.executable, str(ROBOT), *self._robot_arguments]
            node = subprocess.Popen(
                self._hosts.command("policy", self._policy), env=environment("policy"), stdout=log, stderr=log
            )
            self._stack.callback(_end, node)
            self._robot = subprocess.Popen(
                self._hosts.command("robot", robot),
                env=environment("robot"),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            self._stack.callback(_end, self._robot)
            self._stack = self._stack.pop_all()
        return self

    def __exit__(self, *_) -> None:
        self._stack.close()

    def ask(self, *words: object) -> dict:
        """Give the robot an order; return its answer, see remote_robot.py."""
        self._robot.stdin.write(" ".join(map(str, words)) + "\n")
        self._robot.stdin.flush()
        answer = self._robot.stdout.readline()
        assert answer, f"the robot ended; the policy's log: {(self._folder / 'policy.log').read_text()}"
        return json.loads(answer)


def _end(process: subprocess.Popen) -> None:
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(3)
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe:
            pipe.close()


CABLES = {
    "perfect": (),
    "2 ms": (2.0,),
    "10 ms, jitter 3 ms": (10.0, 3.0),
    "2 ms, loss 0.1 %": (2.0, 0.0, 0.1),
    "2 ms, loss 1 %": (2.0, 0.0, 1.0),
}


def main() -> None:
    """Measure raw and compressed images of two cameras over each cable."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", type=Path, help="checkpoint of two cameras, agentview and wrist, and a Panda")
    parser.add_argument("instruction", help="an instruction that it knows")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--width", type=int, default=640)
    parser.add_argument("--height", type=int, default=480)
    parser.add_argument("--tuned", action="store_true", help="set net.ipv4.ipfrag_time to 1")
    parser.add_argument("--transports", nargs="+", default=("raw", "compressed"))
    options = parser.parse_args()
    if reason := why_not():
        sys.exit(reason)
    from m2distill_policy.bringup.processes import NodeDescription, command_line, environment

    size = ["--width", str(options.width), "--height", str(options.height)]
    for transport in options.transports:
        parameters = {
            "checkpoint": str(options.checkpoint.resolve()),
            "arm": "libero_sim",
            "autostart": True,
            "image_transport": transport,
        }
        policy = command_line(NodeDescription("m2distill_policy", "policy_node", "policy", "", parameters))
        robot = [*size, "--transport", transport, "--instruction", options.instruction]
        with (
            TwoHosts(options.tuned) as hosts,
            tempfile.TemporaryDirectory() as folder,
            RemotePolicy(hosts, policy, Path(folder), robot, environment()) as remote,
        ):
            remote.ask("run")
            for name, cable in CABLES.items():
                hosts.set_cable(*cable)
                time.sleep(2)
                row = {"images": f"{transport} {options.width}x{options.height}", "cable": name}
                print(json.dumps(row | remote.ask("measure", options.seconds)), flush=True)


if __name__ == "__main__":
    main()
