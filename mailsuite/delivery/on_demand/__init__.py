"""On-demand mail relay at the provider's: turns, ETRN, how long mail is held, and which of it is taken in."""
