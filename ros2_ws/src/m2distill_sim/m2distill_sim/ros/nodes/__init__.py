"""Executable of the simulator: the node `sim`."""
