"""Find out where a policy's error comes from: decoder, latent, eyes, language, data or simulator.

Each module measures one subject with plain functions on a network and windows of the data, and
returns measurements and findings. ``run.py`` calls them in turn.
"""
