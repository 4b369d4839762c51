"""Sans-IO protocol cores: the grammar and the order of each protocol, in each role, without a socket."""
