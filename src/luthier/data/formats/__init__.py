"""Data formats, one file each: a row to a record. The folder is the list."""
