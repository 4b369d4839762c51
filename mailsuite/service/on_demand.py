"""On-demand mail relay at the provider's: its customers from the settings, and what serves them."""

from __future__ import annotations

from contextlib import closing

from twisted.internet.defer import execute
from twisted.internet.task import Clock

from mailsuite import config
from mailsuite.accounts.configured import ConfiguredCustomer
from mailsuite.accounts.customer_snapshot import Customers
from mailsuite.accounts.errors import DirectoryError
from mailsuite.accounts.reader import DirectoryReader
from mailsuite.config import Settings
from mailsuite.config.customers import customer_value
from mailsuite.delivery.on_demand.nodes import EtrnPolicy
from mailsuite.delivery.on_demand.programs import fault_of
from mailsuite.delivery.on_demand.provider import OnDemandSettings
from mailsuite.interfaces import DirectoryUnavailable
from mailsuite.service.errors import StartError
from mailsuite.service.routes import optional_path, read_password


def configured_customers(settings: Settings) -> list[ConfiguredCustomer]:
    """The customers of the configuration, with their passwords. Raises `StartError`."""
    return [_customer(settings, table) for table in settings.customer]


def _customer(settings: Settings, table: config.Customer) -> ConfiguredCustomer:
    password = None if table.password is None else table.password.get_secret_value()
    if table.password_file is not None:
        password = read_password(settings, table.password_file, f"customer {table.name}")
    recipients = None if table.recipients_file is None else settings.path(table.recipients_file)
    try:
        return ConfiguredCustomer(
            customer_value(table), password, recipients, optional_path(settings, table.password_file)
        )
    except DirectoryError as error:
        raise StartError(str(error)) from None


def check_customers(settings: Settings) -> None:
    """Look at the customers as the server will have them, with those and all else that is kept by command.

    Nothing is made and nothing written. Raises `StartError`.
    """
    customers = configured_customers(settings)
    for one in customers:
        command = one.customer.recipients_command
        fault = fault_of(command) if command else None
        if fault is not None:
            raise StartError(f"customer {one.customer.name}: recipients_command: {fault}")
    try:
        with closing(DirectoryReader(settings.path(settings.accounts.file))) as reader:
            # What needs threads and time is left out: it is asked for no more than its faults.
            Customers(reader, Clock(), execute, customers, default_domain=settings.accounts.default_domain).look_over()
    except DirectoryUnavailable as error:
        sentence = str(error)
        raise StartError(
            sentence if "; " in sentence else f"{sentence}; run this as the user who serves, or as root"
        ) from None


def on_demand_settings(settings: Settings) -> OnDemandSettings:
    """Who may ask by ETRN, and how long a turn may be."""
    table = settings.on_demand
    return OnDemandSettings(EtrnPolicy(table.etrn, table.etrn_networks, table.etrn_interval), table.turn_messages)
