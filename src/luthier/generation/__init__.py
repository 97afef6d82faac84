"""Sampling from a model: batched, with a KV cache, stop strings and streaming."""
