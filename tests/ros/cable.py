"""A cable between two network namespaces whose delay, jitter and loss can be set, for two_hosts.py.

    python cable.py PID ADDRESS PID ADDRESS

Each end is a TUN device "cable" in the namespace of a process; this process carries the packets. The kernel's netem
would do the same, but it is a module that not every kernel has. Settings are lines on stdin, each acknowledged:

    END DELAY_MS JITTER_MS LOSS_PERCENT      of what the end 0 or 1 sends

The devices vanish with this process.
"""

import contextlib
import ctypes
import fcntl
import heapq
import os
import random
import select
import struct
import subprocess
import sys
import time

TUNSETIFF, IFF_TUN, IFF_NO_PI, CLONE_NEWNET = 0x400454CA, 0x0001, 0x1000, 0x40000000
MOST_BYTES, QUEUE_PACKETS = 65536, "10000"


def open_end(pid: str, address: str) -> int:
    """Enter the namespace of a process and create an end of the cable there; return its descriptor."""
    with open(f"/proc/{pid}/ns/net") as namespace:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.setns(namespace.fileno(), CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), namespace.name)
    end = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(end, TUNSETIFF, struct.pack("16sH", b"cable", IFF_TUN | IFF_NO_PI))
    for command in (
        ["address", "add", f"{address}/24", "dev", "cable"],
        ["link", "set", "cable", "up", "txqueuelen", QUEUE_PACKETS],
        ["route", "add", "224.0.0.0/4", "dev", "cable"],
    ):
        subprocess.run(["ip", *command], check=True)
    return end


class Cable:
    """Packets on their way between two descriptors."""

    def __init__(self, ends: list[int]):
        self._ends = ends
        self._settings = {end: (0.0, 0.0, 0.0) for end in ends}  # delay and jitter in s, loss
        self._waiting: list[tuple[float, int, int, bytes]] = []  # due time, number, target, packet
        self._number = 0
        self._due_s = dict.fromkeys(ends, 0.0)  # of the last packet: packets keep their order

    def set(self, end: int, delay_s: float, jitter_s: float, loss: float) -> None:
        self._settings[self._ends[end]] = delay_s, jitter_s, loss

    def wait_s(self) -> float | None:
        return max(0.0, self._waiting[0][0] - time.monotonic()) if self._waiting else None

    def take(self, source: int) -> None:
        """Take all packets that an end has sent."""
        (target,) = (end for end in self._ends if end != source)
        delay_s, jitter_s, loss = self._settings[source]
        while True:
            try:
                packet = os.read(source, MOST_BYTES)
            except BlockingIOError:
                return
            if random.random() < loss:
                continue
            due_s = time.monotonic() + max(0.0, random.gauss(delay_s, jitter_s))
            self._due_s[source] = due_s = max(due_s, self._due_s[source])
            self._number += 1
            heapq.heappush(self._waiting, (due_s, self._number, target, packet))

    def deliver(self) -> None:
        """Deliver the packets that are due."""
        now_s = time.monotonic()
        while self._waiting and self._waiting[0][0] <= now_s:
            _, _, target, packet = heapq.heappop(self._waiting)
            with contextlib.suppress(OSError):  # a full queue loses packets, as a network does
                os.write(target, packet)


def main() -> None:
    pids, addresses = sys.argv[1::2], sys.argv[2::2]
    ends = [open_end(pid, address) for pid, address in zip(pids, addresses, strict=True)]
    cable = Cable(ends)
    print("ready", flush=True)
    while True:
        readable, _, _ = select.select([*ends, sys.stdin], [], [], cable.wait_s())
        for end in ends:
            if end in readable:
                cable.take(end)
        cable.deliver()
        if sys.stdin in readable:
            line = sys.stdin.readline()
            if not line:
                return
            end, delay_ms, jitter_ms, loss_percent = line.split()
            cable.set(int(end), float(delay_ms) / 1e3, float(jitter_ms) / 1e3, float(loss_percent) / 100)
            print("set", flush=True)


if __name__ == "__main__":
    main()
