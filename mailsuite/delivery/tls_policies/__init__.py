"""What TLS a connection to another server must have: by DANE, by MTA-STS, by the configuration, in this order."""

from mailsuite.delivery.tls_policies.dane import Dane
from mailsuite.delivery.tls_policies.mta_sts import MtaSts
from mailsuite.delivery.tls_policies.policies import TLSPolicies
from mailsuite.delivery.tls_policies.sts_cache import StsCache

__all__ = ["Dane", "MtaSts", "StsCache", "TLSPolicies"]
