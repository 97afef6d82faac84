"""What is optimised: one file an objective; `sft.py` is the model of the others."""
