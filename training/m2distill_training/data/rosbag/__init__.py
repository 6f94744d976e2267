"""Recorded episodes (rosbag2).

bag_messages.py    messages of a bag
steps.py           values of which an episode consists
episode_reader.py  observations at the policy's rate
commands.py        their actions
bag_import.py      episodes as LIBERO-format files
"""
