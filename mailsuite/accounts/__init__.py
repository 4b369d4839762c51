"""Who may do what: the directory, password schemes, twisted.cred realm and checkers."""
