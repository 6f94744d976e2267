"""Execution of jobs in parallel.

local_pool.py  worker processes on this machine
"""
