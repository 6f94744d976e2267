"""Benchmarks of `m2distill bench`: speed against a plain implementation in the same run.

measure.py        alternating timing, rows, tables
synthetic.py      stand-ins for recorded demonstrations, of LIBERO's shapes
plain.py          the plain path: LIBERO's training step and reader, from public libraries
steps.py          the gradient step of a stage, without the loop
train.py          bench train: milliseconds per training step
distill.py        bench distill: what strategies keep of earlier tasks, without rollouts
data.py           bench data: windows per second, and the trainer's memory over many tasks
sim.py            bench sim: control steps per second with two images each
experts.py        bench experts: success of the scripted experts
node.py           bench node: latency of the policy node over ROS 2, its start and its memory
record.py         bench record: losses of the recorder, and its share of a core
soak.py           bench soak: memory, missed periods and losses of the whole system over an hour
libero_source.py  LIBERO's own policy, from a clone of its source
"""
