"""The kinds of mirror: each folder implements the whole protocol (`pipeline.mirror.protocol`)."""
