"""Programs as people write them: they import one another by their bare names, from their own directory."""
