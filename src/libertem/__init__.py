"""Load and process pixelated electron microscopy data."""
