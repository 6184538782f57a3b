"""Reading many runs: a dataset, questions to it, two sides compared."""
