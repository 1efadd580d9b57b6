"""An Apache Kafka that asks for TLS, SASL and client certificates, with certificates and users
of its own."""

import base64
import json
import re
import socket
import subprocess
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kafka import KafkaAdminClient
from kafka.admin import (
    ACL,
    ACLOperation,
    ACLPermissionType,
    ACLResourcePatternType,
    ResourcePattern,
    ResourceType,
)

from everspun.broker_access import Grant
from everspun.launcher import Broker, start_broker
from everspun.launcher.broker import Secured

USER, PASSWORD = "site", "p%ss_word;x=1"
NAMES = "DNS:localhost,IP:127.0.0.1"


@dataclass(frozen=True)
class SecuredBroker:
    broker: Broker
    dir: Path
    sasl_port: int
    mutual_port: int
    host: str = "localhost"

    def grant(self, rights: Iterable[Grant]) -> None:
        """Given by the administrator; in force once this returns."""
        grant(self.broker.address, rights)

    def settings(self, mechanism: str) -> dict[str, Any]:
        """Of `[stream]`, for this mechanism; "" = a client certificate."""
        if not mechanism:
            return {
                "bootstrap_servers": f"{self.host}:{self.mutual_port}",
                "security_protocol": "SSL",
                "ssl_cafile": str(self.dir / "ca.pem"),
                "ssl_certfile": str(self.dir / "client.pem"),
                "ssl_keyfile": str(self.dir / "client.key"),
            }
        return {
            "bootstrap_servers": f"{self.host}:{self.sasl_port}",
            "security_protocol": "SASL_SSL",
            "ssl_cafile": str(self.dir / "ca.pem"),
            "sasl_mechanism": mechanism,
        }


def grant(address: str, rights: Iterable[Grant]) -> None:
    """By the administrator, who comes in at this address."""
    admin = KafkaAdminClient(bootstrap_servers=address)
    admin.create_acls([acl(right) for right in rights])
    admin.close()


def acl(grant: Grant) -> ACL:
    """A right as the administrator's client gives it."""
    kinds = {"topic": ResourceType.TOPIC, "group": ResourceType.GROUP}
    pattern = ACLResourcePatternType.PREFIXED if grant.prefixed else ACLResourcePatternType.LITERAL
    name = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", grant.operation).upper()
    return ACL(
        principal=grant.principal,
        host="*",
        operation=ACLOperation[name],
        permission_type=ACLPermissionType.ALLOW,
        resource_pattern=ResourcePattern(kinds[grant.resource], grant.name, pattern),
    )


def token(subject: str = USER) -> str:
    """An unsecured JSON web token, as Kafka's own validator for tests takes it."""

    def part(said: dict[str, Any]) -> str:
        return base64.urlsafe_b64encode(json.dumps(said).encode()).decode().rstrip("=")

    now = time.time()
    return f"{part({'alg': 'none'})}.{part({'sub': subject, 'iat': now, 'exp': now + 3600})}."


#: Rights are asked for; whoever comes over the open listener of loopback is the administrator.
AUTHORIZER = """
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:ANONYMOUS
allow.everyone.if.no.acl.found=false
"""


def start(
    dir: Path, users: Sequence[str] = (), more: str = "", host: str = "localhost"
) -> SecuredBroker:
    """`users` beside USER, all with its password; `more` properties; `host`: a name or address of
    this machine. Raises BrokerError, CalledProcessError."""
    certificates(dir, NAMES if host == "localhost" else f"{NAMES},IP:{host}")
    sasl_port, mutual_port = free_ports(2)
    listeners = f",LOGIN://{host}:{sasl_port},MUTUAL://{host}:{mutual_port}"
    secured = Secured(listeners, properties(dir, more), tuple(scram(users)))
    return SecuredBroker(
        start_broker("kafka", dir / "broker", secured=secured), dir, sasl_port, mutual_port, host
    )


def properties(dir: Path, more: str = "") -> str:
    """Of a broker whose listeners LOGIN and MUTUAL ask for a password and for a certificate."""
    return f"""
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,LOGIN:SASL_SSL,MUTUAL:SSL
inter.broker.listener.name=PLAINTEXT
ssl.keystore.type=PEM
ssl.keystore.location={dir}/server.both.pem
ssl.truststore.type=PEM
ssl.truststore.location={dir}/ca.pem
listener.name.mutual.ssl.client.auth=required
listener.name.login.sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512,OAUTHBEARER
listener.name.login.plain.sasl.jaas.config={LOGIN}.plain.PlainLoginModule required \
  user_{USER}="{PASSWORD}";
listener.name.login.scram-sha-256.sasl.jaas.config={LOGIN}.scram.ScramLoginModule required;
listener.name.login.scram-sha-512.sasl.jaas.config={LOGIN}.scram.ScramLoginModule required;
listener.name.login.oauthbearer.sasl.jaas.config={LOGIN}.oauthbearer.OAuthBearerLoginModule \
  required \
  unsecuredLoginStringClaim_sub="broker";
{more}"""


def scram(users: Sequence[str]) -> list[str]:
    """Options of the storage tool, by which USER and these have PASSWORD."""
    return [
        word
        for mechanism in SCRAM
        for user in (USER, *users)
        for word in ("--add-scram", f"{mechanism}=[name={user},password={PASSWORD}]")
    ]


LOGIN = "org.apache.kafka.common.security"
SCRAM = ("SCRAM-SHA-256", "SCRAM-SHA-512")


def certificates(dir: Path, names: str = NAMES) -> None:
    """An authority, a server of these `names`, a client, and a client of another authority."""
    dir.mkdir(parents=True, exist_ok=True)
    ext = dir / "names"
    ext.write_text(f"subjectAltName={names}\n")
    for ca, signed in (("ca", ("server", "client")), ("other", ("stranger",))):
        openssl(
            dir,
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-days",
            "2",
            "-subj",
            f"/CN={ca}",
            "-keyout",
            f"{ca}.key",
            "-out",
            f"{ca}.pem",
        )
        for name in signed:
            openssl(
                dir,
                "req",
                "-newkey",
                "rsa:2048",
                "-nodes",
                "-subj",
                f"/CN={name}",
                "-keyout",
                f"{name}.key",
                "-out",
                f"{name}.csr",
            )
            openssl(
                dir,
                "x509",
                "-req",
                "-in",
                f"{name}.csr",
                "-CA",
                f"{ca}.pem",
                "-CAkey",
                f"{ca}.key",
                "-days",
                "2",
                "-CAcreateserial",
                "-extfile",
                ext.name,
                "-out",
                f"{name}.pem",
            )
    both = (dir / "server.key").read_text() + (dir / "server.pem").read_text()
    (dir / "server.both.pem").write_text(both)


def openssl(dir: Path, *words: str) -> None:
    subprocess.run(["openssl", *words], cwd=dir, check=True, capture_output=True)


def free_ports(count: int) -> list[int]:
    probes = [socket.socket() for _ in range(count)]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    ports = [int(probe.getsockname()[1]) for probe in probes]
    for probe in probes:
        probe.close()
    return ports
