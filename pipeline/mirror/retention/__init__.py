"""Retention on mirrors: inventory, reachability, the pruning plan, and deletion.

A mirror's inventory says what it holds, reachability what is needed, the plan what goes by the keeper's rules.
"""
