"""The kinds of mirror, one folder for each.

Each folder implements the whole protocol (`pipeline.mirror.protocol`).
"""
