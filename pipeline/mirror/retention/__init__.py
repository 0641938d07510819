"""Retention on mirrors: inventory, reachability, pruning plan, deletion."""
