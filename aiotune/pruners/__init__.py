"""Rules on running trials: which of them have no chance any more."""
