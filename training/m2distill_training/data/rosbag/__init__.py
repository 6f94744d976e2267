"""Recorded episodes (rosbag2).

bag_messages.py    messages of a bag
episode_reader.py  steps at the policy's rate
bag_import.py      episodes as LIBERO-format files
"""
