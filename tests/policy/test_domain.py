"""ROS domains of their own for demo, benchmarks and tests."""

import os
import subprocess
import sys
import tempfile

import pytest

from m2distill_policy.bringup import domain
from m2distill_policy.bringup.domain import own_domain
from m2distill_policy.errors import UserError


@pytest.fixture(autouse=True)
def locks(tmp_path, monkeypatch):
    """The folder for temporary files, of this test alone, so that the domains of other tests do not count."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(domain, "DOMAINS", range(1, 4))
    return tmp_path


def test_two_at_a_time_have_different_domains_and_an_ended_one_is_free_again():
    with own_domain() as first:
        with own_domain() as second:
            assert (first["ROS_DOMAIN_ID"], second["ROS_DOMAIN_ID"]) == ("1", "2")
        with own_domain() as third:
            assert third["ROS_DOMAIN_ID"] == "2"


def test_another_process_reserves_another_domain(locks):
    code = "from m2distill_policy.bringup.domain import own_domain\nwith own_domain() as it: print(it['ROS_DOMAIN_ID'])"
    with own_domain():
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "TMPDIR": str(locks)},
            capture_output=True,
            text=True,
            check=True,
        )
    assert done.stdout == "2\n"


def test_a_lock_file_that_cannot_be_opened_is_skipped(locks):
    (locks / "m2distill-ros-domain-1.lock").mkdir()
    with own_domain() as variables:
        assert variables["ROS_DOMAIN_ID"] == "2"


def test_all_in_use_is_said_in_one_line():
    with own_domain(), own_domain(), own_domain(), pytest.raises(UserError, match="use all ROS domains from 1 to 3"):
        own_domain().__enter__()


def test_traffic_stays_on_this_machine():
    with own_domain() as variables:
        assert variables["ROS_AUTOMATIC_DISCOVERY_RANGE"] == "LOCALHOST"
        assert variables["ROS_STATIC_PEERS"] == ""
