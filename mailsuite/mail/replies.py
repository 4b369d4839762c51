"""Every reply that mailsuite sends, defined once, with the section it comes from.

Where a reply must say more than its constant does, `REPLY.saying(...)` keeps code and status.
"""

from __future__ import annotations

from mailsuite.mail.reply import Reply

_make = Reply.make

# Greeting, closing, information: RFC 5321 section 4.2
OK = _make(250, "2.0.0", "OK")
RESET = _make(250, "2.0.0", "Transaction reset")
BYE = _make(221, "2.0.0", "Closing the channel")
HELP = _make(214, "2.0.0", "See RFC 5321")
CANNOT_VRFY = _make(252, "2.1.5", "Send some mail, it will be tried")  # RFC 5321 section 3.5.3
READY_FOR_TLS = _make(220, "2.0.0", "Ready to start TLS")  # RFC 3207 section 4
SENDER_OK = _make(250, "2.1.0", "Sender OK")
RECIPIENT_OK = _make(250, "2.1.5", "Recipient OK")
CHUNK_OK = _make(250, "2.0.0", "Octets received")  # RFC 3030 section 2
START_CONTENT = _make(354, None, "End data with <CR><LF>.<CR><LF>")
RESUMING = _make(355, None, "0 is the transaction offset")  # RFC 1845 section 3; `wire.smtp.checkpoint.resuming`
# RFC 1845 has no replies of its own for these.
CONTINUED_ELSEWHERE = _make(451, "4.4.2", "The transaction goes on in another session")
NOT_WHERE_IT_BROKE = _make(451, "4.5.0", "The content does not begin where the transaction was resumed")
WAS_COMPLETE = _make(554, "5.5.0", "The transaction is complete, no octet is missing")
NOT_AMONG_THEM = _make(452, "4.5.3", "The transaction is complete; this recipient needs another one")
QUEUED = _make(250, "2.0.0", "Queued")
DELIVERED = _make(250, "2.1.5", "Delivered")  # RFC 2033 section 4.2

# Authentication: RFC 4954 section 4 and 6
AUTHENTICATED = _make(235, "2.7.0", "Authentication succeeded")
AUTH_CANCELLED = _make(501, "5.7.0", "Authentication cancelled")
AUTH_BAD_BASE64 = _make(501, "5.5.2", "Cannot base64-decode the response")
AUTH_NO_INITIAL = _make(501, "5.7.0", "This mechanism takes no initial response")
AUTH_MALFORMED = _make(501, "5.5.2", "The response does not fit the mechanism")
AUTH_LINE_TOO_LONG = _make(500, "5.5.6", "Authentication exchange line is too long")
AUTH_UNKNOWN_MECHANISM = _make(504, "5.5.4", "Unrecognized authentication mechanism")
AUTH_REFUSED = _make(535, "5.7.8", "Authentication credentials invalid")
AUTH_TEMPORARY = _make(454, "4.7.0", "Temporary authentication failure")
AUTH_NEEDS_TLS = _make(538, "5.7.11", "Encryption required for requested authentication mechanism")
AUTH_REQUIRED = _make(530, "5.7.0", "Authentication required")
TLS_REQUIRED = _make(530, "5.7.0", "Must issue a STARTTLS command first")  # RFC 3207 section 4
BEHIND_STARTTLS = _make(554, "5.5.0", "Octets came behind STARTTLS in plaintext")  # RFC 3207 section 4.2
TLS_UNAVAILABLE = _make(454, "4.7.0", "TLS not available due to temporary reason")

# On-demand mail relay: RFC 2645 section 5.2.1, RFC 821 section 3.8. One line each: there are customers that read one.
TURNING = _make(250, "2.0.0", "OK, now reversing the connection")
ATRN_REFUSED = _make(450, "4.7.1", "ATRN request refused")
ATRN_TOO_SOON = _make(450, "4.7.0", "ATRN request refused: too soon after the last one")
ATRN_UNDER_WAY = _make(450, "4.7.0", "ATRN request refused: another turn is under way")
ATRN_UNAVAILABLE = _make(451, "4.3.0", "Unable to process ATRN request now")
NO_MAIL = _make(453, "4.0.0", "You have no mail")

# Remote queue starting: RFC 1985 section 5.1. Who answers names the node.
ETRN_STARTED = _make(250, "2.0.0", "OK, queuing for this node started")
ETRN_NO_MAIL = _make(251, "2.0.0", "OK, no messages waiting for this node")
ETRN_PENDING = _make(252, "2.0.0", "OK, pending messages for this node started")
ETRN_COUNTED = _make(253, "2.0.0", "OK, all pending messages for this node started")  # says how many
ETRN_UNABLE = _make(458, "4.3.0", "Unable to queue messages for this node")
ETRN_NOT_ALLOWED = _make(459, "4.7.1", "This node is not allowed")

# What is wrong with a command: RFC 5321 section 4.2.2 and 4.3.2
UNRECOGNIZED = _make(500, "5.5.1", "Command not recognized")
SYNTAX_ERROR = _make(500, "5.5.2", "Syntax error")
BARE_LINE_END = _make(500, "5.5.2", "Lines end with CR LF, and neither stands alone")
LINE_TOO_LONG = _make(500, "5.5.2", "Line too long")
NO_ARGUMENTS = _make(501, "5.5.4", "This command takes no arguments")
BAD_ARGUMENTS = _make(501, "5.5.4", "Syntax error in arguments")
BAD_SENDER_SYNTAX = _make(501, "5.1.7", "Bad sender address syntax")
BAD_RECIPIENT_SYNTAX = _make(501, "5.1.3", "Bad recipient address syntax")
NOT_IMPLEMENTED = _make(502, "5.5.1", "Command not implemented")
BAD_SEQUENCE = _make(503, "5.5.1", "Bad sequence of commands")
UNKNOWN_PARAMETER = _make(555, "5.5.4", "Parameter not recognized or not implemented")  # section 4.1.1.11
NO_VALID_RECIPIENTS = _make(554, "5.5.1", "No valid recipients")
# RFC 6531 section 3.5: 550 to MAIL, 553 to RCPT
UTF8_SENDER_NOT_ANNOUNCED = _make(550, "5.6.7", "An internationalized sender needs SMTPUTF8")
UTF8_RECIPIENT_NOT_ANNOUNCED = _make(553, "5.6.7", "An internationalized recipient needs SMTPUTF8")

# What is wrong with the sender, a recipient or the content
NO_SUCH_USER = _make(550, "5.1.1", "No such user here")
RELAYING_DENIED = _make(550, "5.7.1", "Relaying denied")
# Behind a turned line 550 would have the provider return what it holds (RFC 2645 has no reply of its own for this).
NOT_OUR_DOMAIN = _make(450, "4.7.1", "Mail for this domain is not taken here now")
MAILBOX_FULL = _make(452, "4.2.2", "Mailbox full")
NOT_YOUR_ADDRESS = _make(550, "5.7.1", "This sender address does not belong to your account")
TOO_MANY_RECIPIENTS = _make(452, "4.5.3", "Too many recipients")  # RFC 5321 section 4.5.3.1.10
TOO_BIG = _make(552, "5.3.4", "Message too big for this system")  # RFC 1870 section 6.1
BARE_CR_IN_CONTENT = _make(554, "5.6.0", "A bare CR stands in the content")
BARE_LF_IN_CONTENT = _make(554, "5.6.0", "A bare LF stands in the content")
ROUTING_LOOP = _make(554, "5.4.6", "Routing loop detected: too many Received lines")
FORWARDING_LOOP = _make(554, "5.4.6", "Routing loop detected: it went to this alias before")
ALIAS_LOOP = _make(550, "5.4.6", "The alias leads back to itself")
ALIAS_TOO_LARGE = _make(550, "5.2.4", "The alias stands for too many addresses")

# What is wrong with us
STORAGE_FULL = _make(452, "4.3.1", "Insufficient system storage")
LOCAL_ERROR = _make(451, "4.3.0", "Local error in processing, try again later")
SHUTTING_DOWN = _make(421, "4.3.2", "Shutting down, try again later")
TOO_MANY_CONNECTIONS = _make(421, "4.7.0", "Too many connections, try again later")
TOO_MANY_ERRORS = _make(421, "4.7.0", "Too many errors")
TOO_SLOW = _make(421, "4.4.2", "Timeout, closing the channel")
SESSION_FAILED = _make(421, "4.3.0", "Local error, closing the channel")
