"""Values: what mail is made of, without I/O and without a clock."""
