"""Kinds of hyperparameters. `aiotune.space` offers them to everybody else."""
