"""Searches on a virtual clock: the real scheduler, oracle and pruner; made-up devices and learning curves."""
