"""The warm-up of the small trunk on object places."""
