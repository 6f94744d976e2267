"""Recording: episodes on disk as standard rosbag2 folders, without ROS.

    episode.py           the folder of episodes, the open episode and its bag
    recovery.py          finishes the episodes that a crashed recorder left open
    episode_topics.py    the topics of an episode, their types and how they are sent
    episode_check.py     what an import would drop
    filmstrip.py         images of an episode side by side
    topic_statistics.py  rate, gaps and losses of one topic

Invariant: an episode appears under its final name by one rename, complete. A crash loses at most the messages since the
last flush.
"""
