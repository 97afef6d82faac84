"""What every part shares: records, contracts, the recipe, the run folder, errors."""
