"""The training engine: one loop, its optimizer, checkpoints, watchers and trackers."""
