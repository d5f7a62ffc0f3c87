"""What oracles that learn are made of: trials as arrays, models of them, and points that these favour."""
