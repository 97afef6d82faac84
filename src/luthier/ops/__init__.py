"""Plain arithmetic that parts share: attention over segments, losses, log-probabilities."""
