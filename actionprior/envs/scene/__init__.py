"""Simulated world: the table, the objects on it and the drawer."""
