"""Pictures, films and Rerun recordings of episodes."""
