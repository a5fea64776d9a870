"""Devices, worker start-up and small geometry helpers."""
