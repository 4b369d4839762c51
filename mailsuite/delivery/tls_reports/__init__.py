"""Reports on TLS with other servers, for who asks for them (RFC 8460)."""

from mailsuite.delivery.tls_reports.book import Book
from mailsuite.delivery.tls_reports.reports import TLSReports
from mailsuite.delivery.tls_reports.routing import TLS_REPORTS, ReportRules, keep_aside, report_agent
from mailsuite.delivery.tls_reports.sending import Sending
from mailsuite.delivery.tls_reports.signature import Signature

__all__ = ["TLS_REPORTS", "Book", "ReportRules", "Sending", "Signature", "TLSReports", "keep_aside", "report_agent"]
