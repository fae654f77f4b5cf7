"""Checkpoints of both stages: reading, writing, checking and exported policies."""
