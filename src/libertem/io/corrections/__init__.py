"""Detector corrections: dark frame, gain map, excluded pixels."""
