"""System tests that measure nothing: two of these files run at a time."""
