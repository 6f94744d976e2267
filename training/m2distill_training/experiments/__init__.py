"""Experiments made of collection, training and evaluation.

demo.py             the whole system in one command
study.py            strategies and ablations on the same data
robosuite_demos.py  robosuite's human demonstrations as a task
suite_files.py      demonstration files of a suite's tasks
"""
