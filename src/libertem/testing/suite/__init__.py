"""The parts of the test suite for data sets, by topic. Use `libertem.testing.DataSetTests`."""
