"""The one place that touches transports: the connection driver, listeners, the dialer, the resolver, TLS."""
