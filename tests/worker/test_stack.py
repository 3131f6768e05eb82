"""The one-machine stack: what it starts, what it keeps, and what it says when something is in the way."""

import asyncio
import json
import os
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from engine.settings import Settings as EngineSettings
from foundation.vault import Vault
from worker.settings import STACK_FILE, Settings
from worker.stack.board import show
from worker.stack.configuration import Configuration, configure
from worker.stack.envfile import read_env_file, write_env_file
from worker.stack.errors import StackError
from worker.stack.lock import LOCK_FILE, locked
from worker.stack.ports import DEFAULT_PORTS, choose_ports, is_free, remembered_ports
from worker.stack.redis import redis_config, redis_server, write_redis_config
from worker.stack.scope import Scope, engine_scope, stack_scope
from worker.stack.services import processes

EVERYTHING = Scope(worker=True, engine=True, redis=True)


def configured(
    data_dir: Path,
    *,
    scope: Scope = EVERYTHING,
    environment: dict[str, str] | None = None,
    remembered: dict[str, str] | None = None,
) -> Configuration:
    return configure(
        data_dir, scope, environment=environment or {}, remembered=remembered or {}, ports=DEFAULT_PORTS
    )


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        yield int(holder.getsockname()[1])


@pytest.fixture
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("GANGWAY_"):
            monkeypatch.delenv(name)


class TestScope:
    """What the environment names is not started."""

    def test_by_default_everything_runs(self) -> None:
        """With nothing set, the machine provides all of it."""
        assert stack_scope({}) == EVERYTHING

    def test_a_given_broker_is_used_by_both(self) -> None:
        """A Redis that the operator names serves the engine too, so none is started."""
        assert not stack_scope({"GANGWAY_BROKER_URL": "redis://broker/0"}).redis

    def test_the_engine_needs_a_redis(self) -> None:
        """With RabbitMQ as the worker's broker a Redis still runs, for the engine's rate limits."""
        assert stack_scope({"GANGWAY_BROKER_URL": "amqp://broker"}).redis

    def test_a_given_api_replaces_the_engine(self) -> None:
        """With another Management API there is no engine, but the worker's broker remains."""
        scope = stack_scope({"GANGWAY_API_URL": "https://api.example", "GANGWAY_API_TOKEN": "t" * 16})

        assert scope == Scope(worker=True, engine=False, redis=True)

    @pytest.mark.parametrize("name", ["GANGWAY_API_URL", "GANGWAY_ENGINE_TOKENS"])
    def test_an_api_without_its_token_is_refused(self, name: str) -> None:
        """A token of our own making would be refused by an API that knows other ones."""
        with pytest.raises(StackError, match=rf"{name} is set: set GANGWAY_API_TOKEN"):
            stack_scope({name: "https://api.example"})

    def test_the_engine_alone_brings_its_broker(self) -> None:
        """`gangway engine` starts a Redis unless it is given one."""
        assert engine_scope({}) == Scope(worker=False, engine=True, redis=True)
        assert not engine_scope({"GANGWAY_ENGINE_BROKER_URL": "redis://broker/1"}).redis


class TestConfiguration:
    """Secrets are made once, what the operator set wins, and each service sees only its own."""

    @pytest.mark.usefixtures("no_settings")
    def test_both_services_accept_it(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """The file alone configures the worker, the engine's environment the engine."""
        config = configured(tmp_path)
        write_env_file(config.env_file, config.kept)

        worker = Settings.load(tmp_path)
        for name, value in config.engine_env.items():
            monkeypatch.setenv(name, value)
        engine = EngineSettings.from_environment()

        assert worker.api_token in engine.tokens
        assert worker.api_url == config.url_of("engine")
        assert worker.create_settle_s > engine.request_deadline_s
        assert worker.broker_url != engine.broker_url
        assert set(worker.webhook_secrets) == {"app"}

    def test_secrets_survive_the_next_start(self, tmp_path: Path) -> None:
        """A second start finds the same secrets, ports and databases."""
        first = configured(tmp_path)
        write_env_file(first.env_file, first.kept)

        second = configured(tmp_path, remembered=read_env_file(first.env_file))

        assert second.own == first.own

    def test_two_directories_share_no_secret(self, tmp_path: Path) -> None:
        """Each data directory has secrets of its own."""
        secrets = [name for name in configured(tmp_path).own if name.endswith(("TOKEN", "KEYS", "PASSWORD"))]
        one, other = configured(tmp_path).own, configured(tmp_path).own

        assert len(secrets) == 5
        assert all(one[name] != other[name] for name in secrets)

    def test_what_the_operator_set_wins_and_is_not_copied(self, tmp_path: Path) -> None:
        """A value from the environment reaches the processes but never the file, under no name."""
        environment = {"GANGWAY_BROKER_URL": "redis://:s3cret@broker/0", "GANGWAY_API_TOKEN": "t" * 16}

        config = configured(tmp_path, scope=stack_scope(environment), environment=environment)

        assert config.worker_env["GANGWAY_BROKER_URL"] == environment["GANGWAY_BROKER_URL"]
        assert config.engine_env["GANGWAY_ENGINE_BROKER_URL"] == environment["GANGWAY_BROKER_URL"]
        assert config.engine_env["GANGWAY_ENGINE_TOKENS"] == environment["GANGWAY_API_TOKEN"]
        assert not set(config.kept.values()) & set(environment.values())

    def test_each_service_sees_only_its_own_secrets(self, tmp_path: Path) -> None:
        """The engine cannot open the worker's secrets, nor the worker the engine's, nor Redis any."""
        config = configured(tmp_path, environment={"PATH": "/bin"})

        assert not [n for n in config.worker_env if n.startswith("GANGWAY_ENGINE_VAULT")]
        assert not [n for n in config.engine_env if n in {"GANGWAY_VAULT_KEYS", "GANGWAY_WEBHOOK_SECRETS"}]
        assert not [n for n in config.plain_env if n.startswith("GANGWAY_")]
        assert config.plain_env["PATH"] == "/bin"

    @pytest.mark.parametrize(
        ("environment", "exempt"), [({}, "127.0.0.1"), ({"NO_PROXY": "intern"}, "intern,127.0.0.1")]
    )
    def test_no_proxy_stands_between_the_processes(
        self, tmp_path: Path, environment: dict[str, str], exempt: str
    ) -> None:
        """Where the way out is a proxy, the processes still reach each other directly."""
        config = configured(tmp_path, environment=environment)

        for env in (config.worker_env, config.engine_env):
            assert env["no_proxy"] == env["NO_PROXY"] == exempt

    def test_a_longer_deadline_means_a_longer_settling(self, tmp_path: Path) -> None:
        """The worker waits longer than the engine may still take to commit a lost request."""
        config = configured(tmp_path, environment={"GANGWAY_ENGINE_REQUEST_DEADLINE_S": "30"})

        assert float(config.own["GANGWAY_CREATE_SETTLE_S"]) > 30

    def test_a_stranger_api_keeps_the_cautious_settling(self, tmp_path: Path) -> None:
        """The settling time measured for our engine is not used for another API."""
        environment = {"GANGWAY_API_URL": "https://api.example", "GANGWAY_API_TOKEN": "t" * 16}
        scope = stack_scope(environment)

        config = configured(
            tmp_path, scope=scope, environment=environment, remembered=dict(configured(tmp_path).own)
        )

        assert "GANGWAY_CREATE_SETTLE_S" not in config.worker_env

    def test_no_secret_is_an_argument(self, tmp_path: Path) -> None:
        """Every user of the machine can read a process's arguments, so they hold no secret."""
        config = configured(tmp_path)
        names = ("TOKEN", "TOKENS", "KEYS", "PASSWORD")
        secrets = [value for name, value in config.own.items() if name.endswith(names)]
        secrets += json.loads(config.own["GANGWAY_WEBHOOK_SECRETS"])["app"]

        for spec in processes(config):
            assert not any(secret in argument for secret in secrets for argument in spec.argv)
            assert not any(secret in repr(spec) for secret in secrets)

    def test_the_board_shows_no_secret(self, tmp_path: Path) -> None:
        """The table of addresses says where secrets are, not what they are."""
        config = configured(tmp_path)

        shown_on = StringIO()

        show(config, Console(file=shown_on, width=200))

        shown = shown_on.getvalue()
        assert config.url_of("web") in shown
        assert str(config.env_file) in shown
        assert config.own["GANGWAY_OPERATOR_TOKEN"] not in shown

    def test_generated_keys_are_usable(self, tmp_path: Path) -> None:
        """A vault opened with the generated keys works."""
        own = configured(tmp_path).own

        for name in ("GANGWAY_VAULT_KEYS", "GANGWAY_ENGINE_VAULT_KEYS"):
            vault = Vault.from_text(own[name])
            assert vault.open(vault.seal(b"secret", context="t"), context="t") == b"secret"


class TestEnvFile:
    """The file is private, whole, and gives back what was put in."""

    @pytest.mark.parametrize("value", ["a b", "it's", 'say "hi"', "back\\slash", "# no", "${HOME}", "ü"])
    def test_values_come_back(self, tmp_path: Path, value: str) -> None:
        """Any one-line value survives the way through the file."""
        path = tmp_path / STACK_FILE

        write_env_file(path, {"GANGWAY_X": value})

        assert read_env_file(path) == {"GANGWAY_X": value}

    def test_only_the_owner_reads_it(self, tmp_path: Path) -> None:
        """The file has mode 0600, also when it replaces one that was open to all."""
        path = tmp_path / STACK_FILE
        path.write_text("")
        path.chmod(0o644)

        write_env_file(path, {"GANGWAY_X": "1"})

        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert [entry.name for entry in tmp_path.iterdir()] == [STACK_FILE]


class TestLock:
    """One stack per data directory."""

    def test_a_second_holder_is_told_who_and_how(self, tmp_path: Path) -> None:
        """While one runs, another is refused with the pid and a way out."""
        with locked(tmp_path), pytest.raises(StackError) as refused, locked(tmp_path):
            pass

        assert f"process {os.getpid()}" in str(refused.value)
        assert f"kill {os.getpid()}" in str(refused.value)

    def test_it_is_gone_afterwards(self, tmp_path: Path) -> None:
        """After the end nothing is left, and the next one starts."""
        with locked(tmp_path):
            assert (tmp_path / LOCK_FILE).exists()

        assert not (tmp_path / LOCK_FILE).exists()
        with locked(tmp_path):
            pass

    def test_a_killed_holder_holds_nothing(self, tmp_path: Path) -> None:
        """The lock of a process that was killed is no lock."""
        program = (
            "import os, signal, sys\nfrom pathlib import Path\nfrom worker.stack.lock import locked\n"
            "with locked(Path(sys.argv[1])):\n    os.kill(os.getpid(), signal.SIGKILL)"
        )
        subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=False, timeout=20)
        assert (tmp_path / LOCK_FILE).exists()

        with locked(tmp_path):
            assert (tmp_path / LOCK_FILE).read_text().strip() == str(os.getpid())


class TestPorts:
    """Asked for, remembered, by default, or free ones."""

    def choose(
        self, *services: str, automatic: bool = False, remembered: dict[str, int] | None = None, **asked: int
    ) -> dict[str, int]:
        return asyncio.run(
            choose_ports(services, asked=asked, remembered=remembered or {}, automatic=automatic)
        )

    def test_an_occupied_port_is_named_with_a_way_out(
        self, taken_port: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The message says which port of which service, and three ways to go on."""
        monkeypatch.setattr("worker.stack.ports.PATIENCE_S", 0.1)

        with pytest.raises(StackError) as refused:
            self.choose("web", web=taken_port)

        for part in (f"port {taken_port} of web", "--web-port N", "GANGWAY_WEB_PORT=N", "--ports auto"):
            assert part in str(refused.value)

    def test_automatic_ports_are_free_and_distinct(self, taken_port: int) -> None:
        """`auto` gives each service a free port, and not the remembered one if that is taken."""
        chosen = self.choose(*DEFAULT_PORTS, automatic=True, remembered={"web": taken_port})

        assert len(set(chosen.values())) == len(DEFAULT_PORTS)
        assert taken_port not in chosen.values()
        assert all(is_free(port) for port in chosen.values())

    def test_automatic_ports_stay(self) -> None:
        """What was chosen once is chosen again, so that a webhook sender's URL stays right."""
        first = self.choose("web", "redis", automatic=True)

        assert self.choose("web", "redis", automatic=True, remembered=first) == first
        assert self.choose("web", "redis", remembered=first) == first

    def test_one_port_for_two_is_refused(self) -> None:
        """Two services asked to share a port are told so."""
        port = self.choose("web", automatic=True)["web"]

        with pytest.raises(StackError, match=f"port {port} is meant for both web and engine"):
            self.choose("web", "engine", web=port, engine=port)

    def test_ports_are_remembered_in_the_file(self, tmp_path: Path) -> None:
        """The ports of a stack are among what its file keeps."""
        assert remembered_ports(configured(tmp_path).kept) == DEFAULT_PORTS


class TestRedis:
    """The broker's configuration."""

    def test_the_server_accepts_it_and_wants_the_password(self, tmp_path: Path) -> None:
        """A real server starts from the file, in an awkward directory, and refuses strangers."""
        data_dir = tmp_path / "a long 'quoted' name"
        data_dir.mkdir()
        port = TestPorts().choose("redis", automatic=True)["redis"]
        path = write_redis_config(data_dir, port, password="s3cret")

        server = subprocess.Popen([redis_server(), str(path)], stdout=subprocess.DEVNULL)
        try:
            asyncio.run(_answers(port, b"PING\r\n", b"-NOAUTH"))
            asyncio.run(_answers(port, b"AUTH s3cret\r\n", b"+OK"))
        finally:
            server.terminate()
            server.wait(timeout=10)

        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert (data_dir / "redis" / "appendonly.aof").exists()

    def test_it_listens_on_loopback_and_forgets_nothing(self, tmp_path: Path) -> None:
        """No stranger reaches it, and it never drops a message to save memory."""
        lines = redis_config(tmp_path, 6390, password="s3cret").splitlines()

        assert {"bind 127.0.0.1", "appendonly yes", "maxmemory-policy noeviction"} <= set(lines)


class TestProcesses:
    """Which processes there are, and in which order."""

    def test_every_service_is_there(self, tmp_path: Path) -> None:
        """The whole stack is eight lasting processes and two migrations."""
        specs = processes(configured(tmp_path))

        assert [spec.name for spec in specs if spec.runs_once] == ["engine-migrate", "migrate"]
        assert {spec.name for spec in specs if not spec.runs_once} == {
            *("redis", "engine-web", "engine-work"),
            *("web", "worker-onboarding", "worker-polling", "beat", "flower"),
        }

    def test_the_broker_ends_last(self, tmp_path: Path) -> None:
        """Whatever lasts comes after the broker, and so ends before it."""
        specs = processes(configured(tmp_path))

        assert all("redis" in spec.after for spec in specs if not spec.runs_once and spec.name != "redis")

    def test_what_is_elsewhere_is_not_started(self, tmp_path: Path) -> None:
        """Without engine and broker only the worker's own processes run."""
        environment = {
            "GANGWAY_BROKER_URL": "redis://broker/0",
            "GANGWAY_API_URL": "https://api.example",
            "GANGWAY_API_TOKEN": "t" * 16,
        }

        config = configured(tmp_path, scope=stack_scope(environment), environment=environment)

        assert not [s.name for s in processes(config) if s.name == "redis" or s.name.startswith("engine")]


async def _answers(port: int, question: bytes, answer: bytes) -> None:
    async with asyncio.timeout(10):
        while not await _got(port, question, answer):  # noqa: ASYNC110  # a server sets no asyncio.Event
            await asyncio.sleep(0.02)


async def _got(port: int, question: bytes, answer: bytes) -> bool:
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.write(question)
    line = await reader.readline()
    writer.close()
    await writer.wait_closed()
    return line.startswith(answer)
