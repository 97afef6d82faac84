"""Metrics, one file each: figures over examples, kept as rows that can be summed and resampled."""
