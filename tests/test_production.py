"""What docs/production.md tells to type and to write is so: every command of ours is parsed,
certificates and secrets are made, the configuration is one, and each host finds its part."""

import argparse
import re
import shlex
import shutil
import ssl
import subprocess
from importlib import import_module
from pathlib import Path

import pytest

from everspun import Config, loads
from everspun.__main__ import COMMANDS
from everspun.commands.system.run import placed
from everspun.hosts import ROLES
from everspun.status import configured_places

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "production.md").read_text()
#: Programs that are not ours, which an SRE has.
OTHERS = {
    *("python3", "useradd", "install", "openssl", "cp", "systemctl", "kubectl", "helm"),
    *("/opt/everspun/bin/pip", "promtool"),
}


FENCED = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def blocks(kind: str) -> list[str]:
    return [text for name, text in FENCED.findall(PAGE) if name == kind]


def command_lines() -> list[str]:
    """Of the blocks, and those of ours within sentences."""
    lines = [line for block in blocks("") for line in block.splitlines() if line]
    return lines + re.findall(r"`((?:everspun|promtool) [^`\n]+)`", FENCED.sub("", PAGE))


def check_ours(words: list[str]) -> None:
    """Fails for a command or an option that there is not."""
    if words == ["--version"]:
        return
    assert words[0] in COMMANDS, words
    parser = argparse.ArgumentParser(exit_on_error=False)
    import_module(COMMANDS[words[0]][0]).arguments(parser)
    if len(words) > 1:  # with one word alone a sentence speaks of the command
        parser.parse_args(words[1:])


def test_every_command_of_ours_is_one():
    ours = [words[1:] for line in command_lines() if (words := shlex.split(line))[0] == "everspun"]
    assert len(ours) > 20
    for words in ours:
        check_ours([word for word in words if word not in ("N", "...")])
    named = {words[0] for words in ours}
    assert {"run", "status", "audit", "topics", "learners", "shards", "checkpoints"} <= named


def test_every_other_program_and_file_is_known():
    for line in command_lines():
        words = shlex.split(line)
        assert words[0] in OTHERS | {"everspun"}, line
        for path in re.findall(r"deploy/[\w./-]+", line):
            assert (ROOT / path).exists(), line


def production() -> Config:
    (text,) = blocks("toml")
    return loads(text, ('run.hash_secret_file=""',))


def test_the_configuration_places_every_process_once():
    config = production()
    counts = config.counts()
    held = [
        (role, index)
        for host in config.hosts.roles
        for role in ROLES
        for index in placed(config, None, host).indices(role, counts[role])
    ]
    assert sorted(held) == sorted((role, index) for role in ROLES for index in range(counts[role]))
    found = configured_places(config, {})
    assert len({(place.address, place.port) for place in found.values()}) == len(held)
    for index, address in enumerate(config.paramserver.addresses):
        assert address == f"{found[f'shard-{index}'].address}:{config.paramserver.port + index}"


@pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl")
def test_the_secrets_are_made_and_the_certificate_is_believed(tmp_path: Path):
    (script,) = (block for block in blocks("") if block.startswith("openssl"))
    done = subprocess.run(
        ["bash", "-euc", script], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    for name in ("hash.secret", "shards.token"):
        assert len((tmp_path / name).read_text().strip()) > 40
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(tmp_path / "host.pem", tmp_path / "host.key")
    client = ssl.create_default_context(cafile=str(tmp_path / "ca.pem"))
    shaken_hands(client, server, "a.shop.example")
    with pytest.raises(ssl.SSLCertVerificationError):
        shaken_hands(client, server, "b.shop.example")


def shaken_hands(client: ssl.SSLContext, server: ssl.SSLContext, name: str) -> None:
    """A handshake in memory. Raises SSLError."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    near = client.wrap_bio(to_client, to_server, server_hostname=name)
    far = server.wrap_bio(to_server, to_client, server_side=True)
    done = set[ssl.SSLObject]()
    for _ in range(10):
        for side in (near, far):
            try:
                side.do_handshake()
                done.add(side)
            except ssl.SSLWantReadError:
                continue
    assert done == {near, far}


def test_the_rules_can_fail():
    with pytest.raises(AssertionError):
        check_ours(["statuss"])
    with pytest.raises((argparse.ArgumentError, SystemExit)):
        check_ours(["learners", "grow", "3"])
