"""Parts of the recorder node.

- `episode_controller`: start, keep, discard and label episodes
- `topic_recorder`, `raw_subscription`, `bag_types`: subscriptions whose messages are written as received
- `status_reporter`: log and /diagnostics
"""
