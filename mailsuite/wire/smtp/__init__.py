"""SMTP, LMTP and their extensions: commands, the server's core, the client's core."""
