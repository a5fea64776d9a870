"""The contract of data sets and the machinery that they share."""
