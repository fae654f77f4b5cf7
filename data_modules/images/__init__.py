"""Camera images of LeRobot datasets: locating, decoding, caching and augmenting them."""
