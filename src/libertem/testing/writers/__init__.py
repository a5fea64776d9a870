"""Write synthetic files in the formats of detectors, from their specifications."""
