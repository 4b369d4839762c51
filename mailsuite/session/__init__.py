"""Conversations: what we want of each connection, as coroutines over a protocol core."""
