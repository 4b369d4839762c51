"""On-demand mail relay at the provider's: its customers from the settings, and what serves them."""

from __future__ import annotations

from mailsuite import config
from mailsuite.accounts.configured import ConfiguredCustomer
from mailsuite.accounts.errors import DirectoryError
from mailsuite.config import Settings
from mailsuite.config.customers import customer_value
from mailsuite.delivery.on_demand.nodes import EtrnPolicy
from mailsuite.delivery.on_demand.provider import OnDemandSettings
from mailsuite.service.errors import StartError
from mailsuite.service.routes import read_password


def configured_customers(settings: Settings) -> list[ConfiguredCustomer]:
    """The customers of the configuration, with their passwords. Raises `StartError`."""
    return [_customer(settings, table) for table in settings.customer]


def _customer(settings: Settings, table: config.Customer) -> ConfiguredCustomer:
    password = None if table.password is None else table.password.get_secret_value()
    if table.password_file is not None:
        password = read_password(settings, table.password_file, f"customer {table.name}")
    recipients = None if table.recipients_file is None else settings.path(table.recipients_file)
    try:
        return ConfiguredCustomer(customer_value(table), password, recipients)
    except DirectoryError as error:
        raise StartError(str(error)) from None


def on_demand_settings(settings: Settings) -> OnDemandSettings:
    """Who may ask by ETRN, and how long a turn may be."""
    table = settings.on_demand
    return OnDemandSettings(EtrnPolicy(table.etrn, table.etrn_networks, table.etrn_interval), table.turn_messages)
