"""Vision-language models of transformers that see, read and fuse in one sequence."""
