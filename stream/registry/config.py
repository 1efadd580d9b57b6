"""Where the schema registry is, and how long it is waited for."""

import re
from dataclasses import dataclass

from stream.options import option

_URL = re.compile(r"https?://(\[[0-9a-fA-F:.]+\]|[^/\s:\[\]]+)(:\d{1,5})?(/\S*)?")


@dataclass(frozen=True)
class RegistryConfig:
    """A schema registry of Confluent's kind (Confluent, Redpanda, Karapace, Apicurio's ccompat)."""

    url: str = option(
        "",
        "'http://HOST:PORT' or 'https://...', several separated by commas; empty = events carry no "
        "schema ids",
    )
    username: str = option("", "user name; empty = EVERSPUN_REGISTRY_USERNAME, or none is sent")
    password_file: str = option(
        "", "file with the password; empty = EVERSPUN_REGISTRY_PASSWORD. It has no key here"
    )
    token_file: str = option(
        "",
        "file with a bearer token, read at each connection; empty = EVERSPUN_REGISTRY_TOKEN, or "
        "none is sent",
    )
    cafile: str = option(
        "", "PEM file of the authorities that vouch for the registry; empty = the system's"
    )
    certfile: str = option("", "PEM file of this client's certificate, where the registry asks")
    keyfile: str = option("", "PEM file of its key; empty = in certfile")
    timeout_ms: int = option(5_000, "deadline of a request to the registry, ms")
    retry_max_ms: int = option(
        5_000, "longest pause between two attempts to reach a registry that is away, ms"
    )
    unknown_ms: int = option(
        2_000,
        "an id is unknown once the registry has said so twice, at least this long apart, ms: a "
        "follower may not have heard of it yet",
    )
    schemas_max: int = option(256, "schemas that are kept; the one used least lately goes first")

    def __post_init__(self) -> None:
        for name in ("timeout_ms", "retry_max_ms", "schemas_max"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} = {getattr(self, name)}: allowed is 1 or more")
        if self.unknown_ms < 0:
            raise ValueError(f"unknown_ms = {self.unknown_ms}: allowed is 0 or more")
        for url in self.urls:
            if "@" in url:
                raise ValueError(
                    "url holds a user name: set registry.username and registry.password_file"
                )
            if not _URL.fullmatch(url):
                raise ValueError(f"url = {url!r}: expected http://HOST:PORT or https://HOST:PORT")
        if self.keyfile and not self.certfile:
            raise ValueError(
                f"keyfile = {self.keyfile!r}: allowed with a certfile, whose key it is"
            )

    @property
    def urls(self) -> tuple[str, ...]:
        """One for each of the registry's nodes, without a slash at the end."""
        return tuple(one.strip().rstrip("/") for one in self.url.split(",") if one.strip())
