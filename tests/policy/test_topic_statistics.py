from m2distill_policy.recording.topic_statistics import TopicStatistics

MS = 1_000_000


def test_rate_gaps_and_losses_are_counted():
    statistics = TopicStatistics(gap_ns=250 * MS)
    assert statistics.problems() == "nothing received"
    for number, ms in enumerate((0, 100, 200), start=7):
        statistics.add(ms * MS, number)
    assert statistics.problems() == "" and statistics.rate_hz == 10
    statistics.add(600 * MS, 13)  # 10, 11 and 12 were published as well
    assert statistics.problems() == "1 gaps, the longest 400 ms, 3 lost"


def test_a_restarted_publisher_has_no_losses():
    statistics = TopicStatistics(gap_ns=250 * MS)
    statistics.add(0, 500)
    statistics.add(100 * MS, 1)
    assert statistics.problems() == ""
