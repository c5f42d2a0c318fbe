"""Measures how fast a config trains and samples on the devices at hand."""
