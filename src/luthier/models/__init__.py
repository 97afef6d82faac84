"""Models: loading, heads, what they need in memory, and the bundled base model."""
