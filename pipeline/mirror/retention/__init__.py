"""Cleaning up of mirrors: what a mirror holds, what is reached, what goes by the keeper's rules, and taking it away."""
