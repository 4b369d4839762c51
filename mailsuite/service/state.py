"""What lies in the data directory from the start: certificate and keys."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mailsuite.config import Settings
from mailsuite.net.selfsigned import make_self_signed
from mailsuite.net.tls import ServerTLS
from mailsuite.service.errors import StartError
from mailsuite.service.routes import checked_srs_secret, configured_srs_secret, optional_path, srs_secret_file
from mailsuite.spool.opening import was_used


@dataclass(frozen=True, slots=True)
class State:
    """Made where it is missing, else read."""

    tls: ServerTLS
    decoy_key: bytes  # of the salts of accounts that do not exist; with another one they would change at a restart
    srs_secret: str | None = None  # by which senders are rewritten, where they are

    @classmethod
    def prepare(cls, settings: Settings, seconds: Callable[[], float], owner: tuple[int, int] | None) -> State:
        """Make or read it; what root makes is given to `owner`. Raises `StartError`, `TLSSettingsError`."""
        directory = settings.data_directory
        try:
            _look_for_accounts(settings)
            before = set(directory.iterdir()) if directory.exists() else None
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            state = cls(load_tls(settings, seconds), _key(directory / "decoy.key"), _srs_secret(settings))
            if owner is not None and os.geteuid() == 0:
                made = [directory] if before is None else []
                made += [path for path in directory.iterdir() if path not in (before or ())]
                for path in made:
                    os.chown(path, *owner)
        except OSError as error:
            raise StartError(
                f"data_directory = {str(directory)!r} cannot be used ({error.strerror}); make it for the user who "
                "serves, or choose another one"
            ) from None
        return state


def load_tls(settings: Settings, seconds: Callable[[], float] | None = None) -> ServerTLS:
    """The certificate of the settings, or a self-signed one. Raises `TLSSettingsError`."""
    tls = settings.tls
    if tls.certificate is None:
        certificate, key = make_self_signed(settings.data_directory, settings.hostname)
    else:
        certificate = settings.path(tls.certificate)
        key = settings.path(tls.key or tls.certificate)
    return ServerTLS(certificate, key, client_ca=optional_path(settings, tls.client_ca), seconds=seconds)


def _look_for_accounts(settings: Settings) -> None:
    """Refuse to begin without accounts over a queue: mail for our own domains would leave for their MX."""
    path = settings.path(settings.accounts.file)
    if was_used(str(settings.path(settings.spool.directory))) and not path.exists():
        raise StartError(
            f"accounts.file: {path} is missing, but a server with these settings has run before, and without its "
            "domains their mail would be sent away; restore it, or begin anew with `mailsuite domain add example.org`"
        )


def _srs_secret(settings: Settings) -> str | None:
    if settings.forwarding.srs_domain is None:
        return None
    configured = configured_srs_secret(settings)
    if configured is not None:
        return configured
    path = srs_secret_file(settings)
    return checked_srs_secret(_key(path).hex(), str(path))


def _key(path: Path) -> bytes:
    """A key that is made once, by chance."""
    if path.exists():
        return path.read_bytes()
    key = secrets.token_bytes(32)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(key)
    return key
