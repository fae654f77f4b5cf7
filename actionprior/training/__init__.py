"""Base of both LightningModules, and sharding, stopping and metrics of training."""
