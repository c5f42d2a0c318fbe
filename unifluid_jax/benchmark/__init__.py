"""How fast a config trains and samples on the devices that there are."""
