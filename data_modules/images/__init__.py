"""Camera images of LeRobot datasets: where they are, decoding, caching, augmentation."""
