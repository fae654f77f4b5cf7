"""Warm-up of the small trunk: learn to locate the objects that an instruction names."""
