"""Training: stages, gradient steps and their parallel processes.

train.py            a run: its stages one after the other
continue_run.py     one more stage for a finished run
start_from.py       the first stage taken from another run
protocols.py        which tasks each stage learns, from which demos
trainer.py          one stage: network, optimiser, state, checkpoint
stored_mixtures.py  mixtures of the policies that learned earlier tasks
batches.py          the batches of a stage and their random numbers
gradients.py        gradients of single loss terms
optimiser.py        AdamW
schedule.py         phases and learning rate
rate.py             gradient steps per second
augment.py          image augmentation
distributed.py      several processes under torchrun
"""
