from m2distill_policy.recording.topic_statistics import TopicStatistics

MS = 1_000_000


def test_rate_gaps_and_losses_are_counted():
    arrivals = TopicStatistics(gap_ns=250 * MS)
    assert arrivals.trouble() == "nothing heard"
    for number, ms in enumerate((0, 100, 200), start=7):
        arrivals.heard(ms * MS, number)
    assert arrivals.trouble() == "" and arrivals.rate_hz == 10
    arrivals.heard(600 * MS, 13)  # 10, 11 and 12 were published as well
    assert arrivals.trouble() == "1 gaps, the longest 400 ms, 3 lost"


def test_a_publisher_that_starts_anew_has_lost_nothing():
    arrivals = TopicStatistics(gap_ns=250 * MS)
    arrivals.heard(0, 500)
    arrivals.heard(100 * MS, 1)
    assert arrivals.trouble() == ""
