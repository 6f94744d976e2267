"""Timing of a run, with given times."""

from m2distill_policy.control.timing_stats import TimingStats


def test_a_run_is_summarised():
    timing = TimingStats(0.05)
    assert timing.summary() == ""
    for now_s in (0.0, 0.05, 0.10, 0.18):  # the last one late
        timing.stepped(now_s, 0.01)
    timing.held()
    timing.held()
    timing.stepped(1.0, 0.03)  # the pause before it is no interval
    assert timing.summary() == (
        "5 commands, 10.0 ms (99 %: 29.2, maximum 30.0) each; every 50.0 ms (99 %: 79.4, maximum "
        "80.0); 1 late by half a period, held 1 times"
    )
    timing.restart()
    assert timing.summary() == "" and timing.numbers()["commands"] == "0"


def test_the_numbers_of_a_run_cover_the_steps_since_the_last_call():
    timing = TimingStats(0.05)
    for step in range(20):
        timing.stepped(step * 0.05, 0.01)
    assert timing.numbers()["policy step (ms)"] == "10.0 ms (99 %: 10.0, maximum 10.0)"
    for step in range(20, 30):
        timing.stepped(0.95 + (step - 19) * 0.1, 0.02)
    numbers = timing.numbers()
    assert numbers["policy step (ms)"] == "20.0 ms (99 %: 20.0, maximum 20.0)"
    assert (numbers["commands"], numbers["overruns"], numbers["commands (Hz)"]) == ("30", "10", "10.0")
