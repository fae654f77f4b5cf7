"""The path that recipes of version 0.1.0 name; :class:`actionprior.ShardedStrategy` is its name."""

from actionprior.training.sharding import ShardedStrategy

__all__ = ["ShardedStrategy"]
