"""One option of the configuration: a default and a line of help, which `docs/configuration.md`
shows; and which options of TLS and SASL go together (pure)."""

from dataclasses import field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stream.config import StreamConfig

#: What kafka-python has.
SASL_MECHANISMS = (
    *("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"),
    *("OAUTHBEARER", "GSSAPI", "AWS_MSK_IAM"),
)
#: Of `sasl_options`: what has a key of its own, or comes from one.
_OWN_KEYS = {
    "sasl_mechanism": "sasl_mechanism",
    "sasl_plain_username": "sasl_username",
    "sasl_oauth_token_provider": "sasl_token_provider",
}
_UNCHECKED = "ssl_check_hostname = false"
_LOGIN, _TOKEN = (
    ("sasl_username", "sasl_password_file"),
    ("sasl_token_provider", "sasl_token_file"),
)


def option(default: Any, help: str) -> Any:
    """A field of a configuration dataclass. `Any`: it stands where a value of the field's type
    does."""
    return field(default=default, metadata={"help": help})


def check_security(config: "StreamConfig") -> None:
    """Raises ValueError for settings of TLS and SASL of which one would be passed over."""
    protocol, mechanism = config.security_protocol, config.sasl_mechanism
    allowed = ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")
    if protocol not in allowed:
        raise ValueError(
            f"security_protocol = {protocol!r}: allowed is {' or '.join(map(repr, allowed))}"
        )
    if protocol.startswith("SASL") != bool(mechanism):
        raise ValueError(
            f"sasl_mechanism = {mechanism!r} with security_protocol = {protocol!r}: the SASL "
            f"protocols need one, such "
            "as 'SCRAM-SHA-512', and the others have none"
        )
    if mechanism and mechanism not in SASL_MECHANISMS:
        raise ValueError(
            f"sasl_mechanism = {mechanism!r}: allowed are {', '.join(map(repr, SASL_MECHANISMS))}"
        )
    _check_tls(config)
    _check_sasl(config)


def _given(config: "StreamConfig", *names: str) -> str:
    """`key = value` of the first of these that says anything; "" = none does."""
    return next((f"{n} = {getattr(config, n)!r}" for n in names if getattr(config, n)), "")


def _check_tls(config: "StreamConfig") -> None:
    files = ("ssl_cafile", "ssl_certfile", "ssl_keyfile", "ssl_key_password_file")
    named = _given(config, *files) or ("" if config.ssl_check_hostname else _UNCHECKED)
    if named and not config.security_protocol.endswith("SSL"):
        raise ValueError(
            f"{named} with security_protocol = {config.security_protocol!r}: "
            "allowed with 'SSL' and 'SASL_SSL'"
        )
    if config.ssl_keyfile and not config.ssl_certfile:
        raise ValueError(
            f"ssl_keyfile = {config.ssl_keyfile!r}: allowed with an ssl_certfile, whose key it is"
        )


def _check_sasl(config: "StreamConfig") -> None:
    """What says who this client is goes with the mechanism, and comes from one place."""
    provider, mechanism = config.sasl_token_provider, config.sasl_mechanism
    module, _, function = provider.partition(":")
    if provider and not all(map(str.isidentifier, [*module.split("."), function])):
        raise ValueError(f"sasl_token_provider = {provider!r}: expected MODULE:FUNCTION")
    for name in config.sasl_options:
        if not name.startswith("sasl_") or "password" in name:
            raise ValueError(
                f"sasl_options.{name}: allowed are settings `sasl_...` of kafka-python, and no "
                f"password"
            )
        if name in _OWN_KEYS:
            raise ValueError(f"sasl_options.{name}: expected as stream.{_OWN_KEYS[name]}")
    named = _given(config, *_LOGIN, *_TOKEN, "sasl_options")
    if named and not mechanism:
        raise ValueError(
            f"{named} with security_protocol = {config.security_protocol!r}: allowed with "
            "'SASL_PLAINTEXT' and 'SASL_SSL'"
        )
    login, token = _given(config, *_LOGIN), _given(config, *_TOKEN)
    if login and mechanism not in ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", ""):
        raise ValueError(
            f"{login} with sasl_mechanism = {mechanism!r}: allowed with 'PLAIN', 'SCRAM-SHA-256' "
            "and 'SCRAM-SHA-512'"
        )
    if token and mechanism not in ("OAUTHBEARER", ""):
        raise ValueError(f"{token} with sasl_mechanism = {mechanism!r}: allowed with 'OAUTHBEARER'")
    if provider and config.sasl_token_file:
        raise ValueError(
            f"sasl_token_provider = {provider!r} with sasl_token_file = "
            f"{config.sasl_token_file!r}: expected one of them"
        )
