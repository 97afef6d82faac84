"""Checks of data, one file a family, each documented by the codes that it can find."""
