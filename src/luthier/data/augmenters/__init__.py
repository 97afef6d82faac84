"""Steps that make further training rows, one file each. The folder is the list."""
