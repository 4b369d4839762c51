"""`mailsuite send`: a test message, with all that happens on its way.

It goes by the product's own parts: router, resolver, TLS policies and relay agent are those of the server, and what
they ask and hear is told on the way.

    command    the command
    message    the message that is sent
    steps      what is told
    watching   a conversation and a TLS handshake, watched
    around     the DNS, the policies and the dialer, watched
    delivery   a queue run of one message
    way        the whole way
"""
