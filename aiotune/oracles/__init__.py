"""Oracles: what to try next. One algorithm a file."""

from aiotune.oracles.random_search import RandomSearchOracle

__all__ = ["RandomSearchOracle"]
