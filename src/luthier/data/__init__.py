"""From raw rows to batches: sources, formats, splits, templates, order."""
