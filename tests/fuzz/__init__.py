"""Inputs that peers may send to do harm. `corpus/` holds them; `python -m tests.fuzz` finds more."""
