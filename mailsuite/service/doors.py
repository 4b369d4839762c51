"""A door for each listener: what it offers in plaintext and under TLS, whom it asks, whom it trusts.

The one place where the settings of a listener become a `Door`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv4Network, IPv6Network
from typing import Final

from mailsuite.accounts.names import login_key, written
from mailsuite.config import Listen, Settings
from mailsuite.mail.session import SecretKind
from mailsuite.service.parts import Parts
from mailsuite.service.state import State
from mailsuite.session.inbound import Door
from mailsuite.wire import sasl
from mailsuite.wire.smtp.content import LineEndRule
from mailsuite.wire.smtp.offer import Offer

_LOOPBACK: Final = (IPv4Network("127.0.0.0/8"), IPv6Network("::1/128"))
# Without TLS nothing is offered that shows the password (RFC 4954 section 4).
_IN_PLAINTEXT: Final = (b"SCRAM-SHA-256", b"CRAM-MD5")
_KEPT_FOR: Final = {b"SCRAM-SHA-256": SecretKind.SCRAM_SHA_256, b"CRAM-MD5": SecretKind.SHARED}
_UNDER_TLS: Final = (*_IN_PLAINTEXT, b"PLAIN", b"LOGIN")


def make_door(listen: Listen, parts: Parts, state: State) -> Door:
    """What a connection to this listener finds."""
    settings = parts.settings
    usable = _usable(parts)
    plain, secure = (replace(offer, usable=usable) for offer in offers(settings, listen))
    return Door(
        settings.hostname,
        plain,
        secure,
        parts.router,
        parts.spool,
        parts.seconds,
        authenticator=parts.authenticator if _has_auth(listen) else None,
        sasl=_sasl(settings, parts.seconds, state.decoy_key),
        tls=(lambda: state.tls) if plain.starttls else None,
        submission=listen.service == "submission",
        trusted=(*listen.trusted, *(_LOOPBACK if settings.receive.trust_loopback else ())),
        max_recipients=settings.limits.recipients,
        log=parts.log_lines,
        on_demand=parts.on_demand,
        turn_allowed=settings.on_demand.turn,
        checkpoints=parts.checkpoints,
        customers=parts.customers,
        quota=parts.quota,
        refused_login=parts.refusals,
        service=listen.service,
    )


def offers(settings: Settings, listen: Listen) -> tuple[Offer, Offer]:
    """What is offered in plaintext, and what under TLS."""
    submission = listen.service == "submission"
    odmr = listen.service == "odmr"
    has_auth = _has_auth(listen)
    plain = Offer(
        settings.hostname,
        odmr=odmr,
        atrn=odmr,
        turn=odmr and settings.on_demand.turn,
        etrn=listen.service == "smtp" and settings.on_demand.etrn != "none",
        lmtp=listen.service == "lmtp",
        max_size=settings.limits.message_size or None,
        starttls=listen.tls == "starttls",
        mechanisms=_IN_PLAINTEXT if has_auth and not submission else (),
        require_tls=submission,
        require_auth=submission,
        checkpoint=settings.on_demand.checkpoint and listen.service in {"smtp", "submission"},
        dsn=True,
        requiretls=True,
        line_ends=LineEndRule(settings.receive.line_ends),
        max_errors=settings.limits.errors,
    )
    external = (b"EXTERNAL",) if settings.tls.client_ca is not None else ()
    mechanisms = (*_UNDER_TLS, *external) if has_auth else ()
    atrn = odmr or (submission and listen.atrn)
    return plain, replace(
        plain,
        starttls=False,
        require_tls=False,
        mechanisms=mechanisms,
        atrn=atrn,
        turn=atrn and settings.on_demand.turn,
    )


def _usable(parts: Parts) -> Callable[[bytes], bool]:
    """Says of a mechanism whether somebody here could log in by it, by what is kept of passwords at that moment.

    A client takes the strongest that it is told of (curl CRAM-MD5), and does not try another one.
    """
    # Of these the password itself is known.
    has_known = any(one.password is not None or one.password_file is not None for one in parts.settings.customer)

    def usable(mechanism: bytes) -> bool:
        kind = _KEPT_FOR.get(mechanism)
        return kind is None or has_known or kind in parts.directory.kinds

    return usable


def _has_auth(listen: Listen) -> bool:
    # RFC 2645 section 5.1: AUTH is there, whatever else is.
    return listen.service == "odmr" or (listen.service == "submission" if listen.auth is None else listen.auth)


def _sasl(settings: Settings, seconds: Callable[[], float], decoy_key: bytes) -> sasl.ServerParameters:
    default_domain = settings.accounts.default_domain

    def canonical(name: str) -> str:
        key = login_key(name, default_domain)
        return name.casefold() if key is None else written(key)

    return sasl.ServerParameters(
        hostname=settings.hostname.encode("ascii", "replace"),
        clock=seconds,
        decoy_key=decoy_key,
        canonical=canonical,
    )
