"""Delivery agents: each drains queue runs for the destinations that bear its name."""
