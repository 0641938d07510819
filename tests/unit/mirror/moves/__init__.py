"""What is signed of names and tags, on mirrors that are published to whole."""
