"""A broker that asks who you are, and lets you do only what you were granted.

This module owns the certificates of a test run, the users of one broker, and what they may do.

1. The secured listener speaks TLS and asks for a user and password: SCRAM-SHA-512, or PLAIN.
2. Nobody may do anything there that was not granted by `allow`; grants hold when the call returns.
3. The plain listener on loopback is the test's own back door: it is the super user.

Certificates are made anew by the openssl program, and live as long as the folder they are in.
"""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple, Self

from confluent_kafka import KafkaException
from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)

from demo.broker import Broker, BrokerUnavailable
from demo.kafka_wire import HOST, free_port

SCRAM, PLAIN = "SCRAM-SHA-512", "PLAIN"
# The users of PLAIN stand in the broker's own settings, so there is this one for all tests.
PLAIN_USER, PLAIN_PASSWORD = "plain-user", "plain-secret"
SCRAM_ITERATIONS = 4096  # Kafka takes no fewer.
ASK_S = 10.0
WAIT_S = 20.0
POLL_S = 0.02


class Grant(NamedTuple):
    """A right: to do this to that resource."""

    resource: ResourceType
    name: str
    operation: AclOperation

    def binding(self, user: str) -> AclBinding:
        return AclBinding(
            self.resource,
            self.name,
            ResourcePatternType.LITERAL,
            f"User:{user}",
            "*",
            self.operation,
            AclPermissionType.ALLOW,
        )

    def filter(self, user: str) -> AclBindingFilter:
        return AclBindingFilter(
            self.resource,
            self.name,
            ResourcePatternType.LITERAL,
            f"User:{user}",
            None,
            self.operation,
            AclPermissionType.ALLOW,
        )


def topic(name: str, operation: AclOperation) -> Grant:
    """Return the right to do this to a topic."""
    return Grant(ResourceType.TOPIC, name, operation)


def group(name: str) -> Grant:
    """Return the right to join a consumer group and commit for it."""
    return Grant(ResourceType.GROUP, name, AclOperation.READ)


def transactional_id(name: str) -> Grant:
    """Return the right to write in transactions of this id."""
    return Grant(ResourceType.TRANSACTIONAL_ID, name, AclOperation.WRITE)


class Certificates:
    """An authority, the broker's certificate from it, and another authority, a stranger."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.authority = folder / "ca.pem"
        self.stranger = folder / "stranger.pem"
        self.keystore = folder / "broker.pem"
        self._make_authority("ca")
        self._make_authority("stranger")
        self._openssl(
            "req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=broker "
            "-keyout broker.key -out broker.csr"
        )
        (folder / "broker.ext").write_text(f"subjectAltName=DNS:localhost,IP:{HOST}\n")
        self._openssl(
            "x509 -req -in broker.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 "
            "-extfile broker.ext -out broker.crt"
        )
        # Java reads the key and its certificate from one file.
        parts = [(folder / name).read_text() for name in ("broker.key", "broker.crt")]
        self.keystore.write_text("".join(parts))

    def _make_authority(self, name: str) -> None:
        self._openssl(
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 "
            f"-subj /CN={name} -keyout {name}.key -out {name}.pem"
        )

    def _openssl(self, arguments: str) -> None:
        done = subprocess.run(
            ["openssl", *arguments.split()], cwd=self._folder, capture_output=True, text=True
        )
        if done.returncode != 0:
            raise BrokerUnavailable(f"openssl {arguments}: status {done.returncode}: {done.stderr}")


class SecuredBroker:
    """A broker with a SASL_SSL listener beside its plain one, for as long as the `with` block."""

    def __init__(self, folder: Path) -> None:
        if shutil.which("openssl") is None:
            raise BrokerUnavailable("There is no openssl program to make certificates with.")
        self.certificates = Certificates(folder)
        self._port = free_port()
        self.broker = Broker(properties=_properties(self._port, self.certificates.keystore))
        self.address = f"{HOST}:{self._port}"

    def __enter__(self) -> Self:
        self.broker.__enter__()
        self._admin = AdminClient({"bootstrap.servers": self.broker.bootstrap_servers})
        return self

    def __exit__(self, *_: object) -> None:
        self.broker.close()

    def add_user(self, user: str, password: str) -> None:
        """Make a user of SCRAM, or give one another password."""
        how = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, SCRAM_ITERATIONS)
        change = UserScramCredentialUpsertion(user, how, password.encode())
        for changed in self._admin.alter_user_scram_credentials([change]).values():
            changed.result(ASK_S)
        # Kafka answers when the change is decided; the broker learns of it a moment later.
        self._wait(lambda: self._knows(user), f"user {user}")

    def allow(self, user: str, *grants: Grant) -> None:
        """Grant rights to a user."""
        bindings = [grant.binding(user) for grant in grants]
        for created in self._admin.create_acls(bindings).values():
            created.result(ASK_S)
        self._wait(
            lambda: all(self._grants(user, grant) for grant in grants), f"{grants} of {user}"
        )

    def forbid(self, user: str, *grants: Grant) -> None:
        """Take rights back that were granted."""
        filters = [grant.filter(user) for grant in grants]
        for deleted in self._admin.delete_acls(filters).values():
            assert deleted.result(ASK_S), f"{user} had none of {grants}"
        self._wait(
            lambda: not any(self._grants(user, grant) for grant in grants), f"no {grants} of {user}"
        )

    def client_properties(
        self,
        user: str,
        password: str,
        *,
        mechanism: str = SCRAM,
        authority: Path | None = None,
    ) -> dict[str, str]:
        """Return librdkafka's properties of this user, who trusts the authority, ours if none."""
        return {
            "bootstrap.servers": self.address,
            "security.protocol": "SASL_SSL",
            "ssl.ca.location": str(authority or self.certificates.authority),
            "sasl.mechanism": mechanism,
            "sasl.username": user,
            "sasl.password": password,
        }

    def _knows(self, user: str) -> bool:
        asked = self._admin.describe_user_scram_credentials([user])[user]
        try:
            return bool(asked.result(ASK_S).scram_credential_infos)
        except KafkaException:  # There is no such user yet.
            return False

    def _grants(self, user: str, grant: Grant) -> bool:
        return bool(self._admin.describe_acls(grant.filter(user)).result(ASK_S))

    def _wait(self, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + WAIT_S
        while not condition():
            if time.monotonic() > deadline:
                raise BrokerUnavailable(f"The broker had not learned of {what} in {WAIT_S:g} s.")
            time.sleep(POLL_S)


def as_environment(properties: Mapping[str, str]) -> dict[str, str]:
    """Return librdkafka's properties as the worker's KAFKA_* variables."""
    return {f"KAFKA_{name.upper().replace('.', '_')}": text for name, text in properties.items()}


def _properties(port: int, keystore: Path) -> dict[str, str | int]:
    login = "org.apache.kafka.common.security"
    return {
        "listeners": f"SECURED://{HOST}:{port}",
        "listener.security.protocol.map": "SECURED:SASL_SSL",
        "listener.name.secured.ssl.keystore.type": "PEM",
        "listener.name.secured.ssl.keystore.location": str(keystore),
        "listener.name.secured.sasl.enabled.mechanisms": f"{SCRAM},{PLAIN}",
        "listener.name.secured.scram-sha-512.sasl.jaas.config": (
            f"{login}.scram.ScramLoginModule required;"
        ),
        "listener.name.secured.plain.sasl.jaas.config": (
            f'{login}.plain.PlainLoginModule required user_{PLAIN_USER}="{PLAIN_PASSWORD}";'
        ),
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        # Of the plain and the controller's listener; both are on loopback.
        "super.users": "User:ANONYMOUS",
    }
