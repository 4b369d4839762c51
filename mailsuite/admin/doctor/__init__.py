"""`mailsuite doctor`: walks the whole chain of on-demand mail relay, and names the first thing that is wrong.

findings   what is found at each step, and the end of a walk
visit      one visit to a server: greeting, EHLO, TLS, login
network    the DNS and the servers, as they are asked
site       what lies on the disk here
judging    certificates, and what a failed visit means
provider   the provider's chain
customer   the customer's chain
command    the command
"""

from mailsuite.admin.doctor.command import doctor

__all__ = ["doctor"]
