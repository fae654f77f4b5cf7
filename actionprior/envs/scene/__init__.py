"""What stands on the table: the simulated world, its objects and the drawer."""
