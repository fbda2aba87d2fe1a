"""Configurations: read from anybody's yaml, put into one another, and checked for keys that nothing knows."""
