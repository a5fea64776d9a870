"""Loading data sets and the registry of formats."""
