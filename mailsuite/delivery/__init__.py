"""Where mail goes and how it gets there: routing, the scheduler, agents, bounces."""
