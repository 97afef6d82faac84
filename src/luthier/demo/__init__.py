"""Demo data of the project's own making: customer support for a shop that does not exist."""
