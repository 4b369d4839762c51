"""Makes `twistd mailsuite` known; mailsuite.tap is imported only when it is asked for."""

from twisted.application.service import ServiceMaker

mailsuite = ServiceMaker(
    "mailsuite",
    "mailsuite.tap",
    "A mail server: SMTP, submission, LMTP, and a durable relay queue.",
    "mailsuite",
)
