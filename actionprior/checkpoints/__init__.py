"""Checkpoints of both stages and exported policies: writing, reading, checking, resuming."""
