"""Execution of jobs: one interface, on worker processes of this machine or of a Ray cluster.

jobs.py         a job, its resources and its outcome
executor.py     the queue: which worker does what, repetition after a loss, cancellation
graph.py        activities that become jobs when those before them have ended
attempt.py      what a worker does with a job
local.py        worker processes on this machine
ray_cluster.py  workers on the nodes of a Ray cluster
nodes.py        checks of a cluster's nodes: shared folder, versions, renderer
open.py         the backend that the options --workers and --cluster name
"""
