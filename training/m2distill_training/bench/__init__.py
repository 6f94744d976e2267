"""How fast it is, against the plain path in the same run: `m2distill bench train|data|sim|experts|node|record|soak`.

measure.py    alternating timing, rows, tables
synthetic.py  stand-ins for recorded demonstrations, of LIBERO's shapes
plain.py      the plain path: LIBERO's training step and reader, put together from public libraries
steps.py      a stage's own gradient step, apart from the loop
train.py      bench train: milliseconds per training step
data.py       bench data: windows per second, and the trainer's memory over many tasks
sim.py        bench sim: control steps per second with two images each
experts.py    bench experts: how often the scripted experts succeed
node.py       bench node: a command of the policy node over ROS 2, its start and its memory
record.py     bench record: what the recorder loses, and its share of a core
soak.py       bench soak: memory, missed periods and losses of the whole system over an hour
libero_source.py  LIBERO's own policy, from a clone of its source
"""
