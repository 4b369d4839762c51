"""The typed settings: one TOML file, every key optional, every error one sentence with file, key, reason and cure.

The models are the reference: `docs/configuration.md` is generated from them, and a test holds `etc/mailsuite.toml`
against them. The defaults alone make a server that works: on the loopback, on high ports, everything below one
directory.

Durations are seconds, or text such as `"5m"`, `"4h"`, `"5d"`; sizes are octets, or text such as `"50 MiB"`. Relative
paths begin at `data_directory`, and that begins at the directory of the configuration file.
"""

from mailsuite.config.on_demand import Customer, OnDemand, Pull
from mailsuite.config.relaying import MX, Agent, Route
from mailsuite.config.settings import Settings, SettingsError
from mailsuite.config.tables import Listen
from mailsuite.config.values import is_duration, is_rate, is_size, split_host_port

__all__ = [
    "MX",
    "Agent",
    "Customer",
    "Listen",
    "OnDemand",
    "Pull",
    "Route",
    "Settings",
    "SettingsError",
    "is_duration",
    "is_rate",
    "is_size",
    "split_host_port",
]
