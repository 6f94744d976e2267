"""Offline training: data, losses, strategies, training, evaluation and the commands of `m2distill`.

    config.py presets.py   settings of a training run
    data/                  demonstrations: readers, frame store, windows, replay
    losses/ strategies/    what a stage learns, and how it keeps earlier tasks
    engine/                the stages of a run, one after the other
    evaluation/            episodes in simulation, metrics, latent drift
    promotion/             the gate between training and the robot
    report/ runs/          the HTML page; run folders
    experiments/ bench/    demo and study; benchmarks
    cli/                   one module for each command

This file imports nothing.
"""
