"""Steps that mend records, one file each. The folder is the list."""
