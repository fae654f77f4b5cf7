"""What both LightningModules share, and how training is sharded and stopped."""
