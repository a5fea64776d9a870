"""Executors: where the tasks of a UDF run are carried out."""
