"""The supervisor of child processes: order, restarts, endings, and what its own death leaves behind."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from worker.supervisor import HttpOk, ProcessSpec, Supervisor, TcpOpen
from worker.supervisor.child import describe_status
from worker.supervisor.logfile import last_words, open_log, trim
from worker.supervisor.restarts import (
    LOOP_AFTER,
    MAX_DELAY_S,
    STEADY_AFTER_S,
    failures_in_a_row,
    is_worth_a_line,
    restart_delay_s,
)

DEADLINE_S = 60.0
"""The last resort on a busy machine: nothing here takes longer than a second by itself."""
SLEEPER = "import time; time.sleep(60)"


def python(name: str, code: str, **options: object) -> ProcessSpec:
    return ProcessSpec(name=name, argv=(sys.executable, "-c", code), env=dict(os.environ), **options)  # type: ignore[arg-type]


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return not is_zombie(pid)


def is_zombie(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] == "Z"


async def eventually(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not holds():  # noqa: ASYNC110  # other processes set no asyncio.Event
            await asyncio.sleep(0.02)


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(DEADLINE_S):
            await scenario()

    asyncio.run(bounded())


@pytest.fixture
def port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_backoff_starts_at_once_and_is_capped() -> None:
    """The first restart comes within a tenth of a second, none waits longer than the cap."""
    delays = [restart_delay_s(failures) for failures in range(1, 2000)]

    assert delays[0] == pytest.approx(0.1)
    assert delays == sorted(delays)
    assert delays[-1] == MAX_DELAY_S


def test_a_steady_life_is_forgiven() -> None:
    """A process that ran well for a while starts its count of failures anew."""
    assert failures_in_a_row(7, lived_s=0.5) == 8
    assert failures_in_a_row(7, lived_s=STEADY_AFTER_S) == 1


def test_a_crash_loop_does_not_flood() -> None:
    """The first deaths are told one by one, an endless loop about once a minute."""
    lines = [failures for failures in range(1, 61) if is_worth_a_line(failures)]

    assert lines == [*range(1, LOOP_AFTER + 1), 12, 24, 36, 48, 60]


@pytest.mark.parametrize(
    ("status", "words"), [(0, "exit status 0"), (3, "exit status 3"), (-9, "SIGKILL"), (-99, "signal 99")]
)
def test_statuses_have_names(status: int, words: str) -> None:
    """A death by signal is told by the signal's name."""
    assert describe_status(status) == words


def test_a_long_log_is_moved_aside_under_its_writer(tmp_path: Path) -> None:
    """A log over the limit becomes NAME.log.1, and its writer goes on in an empty one."""
    log = tmp_path / "web.log"
    writer = open_log(log)
    os.write(writer, b"old line\n" * 10)

    trim(log, max_bytes=50)
    os.write(writer, b"new line\n")
    os.close(writer)

    assert log.read_text() == "new line\n"
    assert (tmp_path / "web.log.1").read_text() == "old line\n" * 10
    assert log.stat().st_mode & 0o077 == 0


def test_last_words_are_this_lifes_words(tmp_path: Path) -> None:
    """What an earlier run wrote is not quoted for this one."""
    log = tmp_path / "web.log"
    log.write_text("an earlier life\nfirst\n\nsecond\nthird\n")

    assert last_words(log, since=len("an earlier life\n")) == "second | third"
    assert last_words(log, since=log.stat().st_size) == ""


def test_an_unknown_predecessor_is_refused(tmp_path: Path) -> None:
    """Coming after a process that is not there would mean never."""
    spec = python("web", SLEEPER, after=frozenset({"redsi"}))

    with pytest.raises(ValueError, match="web comes after redsi"):
        Supervisor([spec], logs=tmp_path, report=print)


def test_processes_start_in_order_and_end_in_reverse(tmp_path: Path) -> None:
    """What comes after something starts when that is ready and has ended before that is asked to end."""
    diary = tmp_path / "diary"
    keep_diary = (
        "import signal, sys, time\n"
        f"def note(word): open({str(diary)!r}, 'a').write(word + ' {{}}\\n')\n"
        "signal.signal(signal.SIGTERM, lambda *_: (time.sleep(0.2), note('end'), sys.exit()))\n"
        "note('start')\n"
        "time.sleep(60)"
    )
    job = f"import time; time.sleep(0.2); open({str(diary)!r}, 'a').write('job\\n')"

    async def scenario() -> None:
        specs = [
            python("second", keep_diary.format("second"), after=frozenset({"job", "first"})),
            python("job", job, after=frozenset({"first"}), runs_once=True),
            python("first", keep_diary.format("first")),
        ]
        async with Supervisor(specs, logs=tmp_path / "logs", report=print) as supervisor:
            await supervisor.all_ready()
            await eventually(lambda: diary.exists() and "start second" in diary.read_text())

    run(scenario)

    assert diary.read_text().splitlines() == ["start first", "job", "start second", "end second", "end first"]


@pytest.mark.parametrize("kind", ["tcp", "http"])
def test_ready_means_answering(tmp_path: Path, port: int, kind: str) -> None:
    """A server counts as ready when it answers, and what comes after it does not start earlier."""
    server = (
        "import http.server, time; time.sleep(0.3)\n"
        f"http.server.HTTPServer(('127.0.0.1', {port}), http.server.SimpleHTTPRequestHandler).serve_forever()"
    )
    probe = TcpOpen(port) if kind == "tcp" else HttpOk(port, "/")
    connects = f"import socket; socket.create_connection(('127.0.0.1', {port}))"

    async def scenario() -> None:
        specs = [
            python("server", server, ready=probe),
            python("client", connects, after=frozenset({"server"}), runs_once=True),
        ]
        async with Supervisor(specs, logs=tmp_path, report=reports.append) as supervisor:
            await supervisor.all_ready()

    reports: list[str] = []
    run(scenario)

    assert reports == []


def test_a_killed_process_comes_back(tmp_path: Path) -> None:
    """SIGKILL of a child is told in one line and answered with a new child."""
    reports: list[str] = []

    async def scenario() -> None:
        async with Supervisor([python("web", SLEEPER)], logs=tmp_path, report=reports.append) as supervisor:
            await supervisor.all_ready()
            before = supervisor.pid_of("web")
            assert before is not None
            assert supervisor.pids() == {"web": before}

            os.kill(before, signal.SIGKILL)
            await eventually(lambda: supervisor.pid_of("web") not in {None, before})

    run(scenario)

    assert len(reports) == 1
    assert reports[0].startswith("web ended with SIGKILL")


def test_a_crash_loop_is_told_with_the_last_words(tmp_path: Path) -> None:
    """A process that dies at every start is reported with what it said, where its log is, and tried again."""
    reports: list[str] = []
    spec = python("web", "import sys; print('port 80 is taken'); sys.exit(3)")

    async def scenario() -> None:
        async with Supervisor([spec], logs=tmp_path, report=reports.append):
            await eventually(lambda: len(reports) == LOOP_AFTER)

    run(scenario)

    assert reports[-1] == (
        "web keeps dying, 3 times in a row; this time it ended with exit status 3 and said: "
        f"port 80 is taken; starting it again. Its log: {tmp_path / 'web.log'}"
    )


def test_a_command_that_does_not_exist_is_named(tmp_path: Path) -> None:
    """A missing program is told by its path, like any other failure."""
    reports: list[str] = []
    spec = ProcessSpec(name="redis", argv=("/nowhere/redis-server",), env={})

    async def scenario() -> None:
        async with Supervisor([spec], logs=tmp_path, report=reports.append):
            await eventually(lambda: len(reports) == LOOP_AFTER)

    run(scenario)

    assert "/nowhere/redis-server: No such file or directory" in reports[-1]


def test_the_deaf_are_killed_with_all_their_children(tmp_path: Path) -> None:
    """A process that ignores SIGTERM is killed after the grace, and so is what it had started."""
    grandchild = tmp_path / "grandchild"
    deaf = (
        "import signal, subprocess, sys, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        f"open({str(grandchild)!r}, 'w').write(str(child.pid))\n"
        "time.sleep(60)"
    )
    reports: list[str] = []
    pids: list[int | None] = []

    async def scenario() -> None:
        async with Supervisor(
            [python("deaf", deaf)], logs=tmp_path, report=reports.append, grace_s=0.2
        ) as supervisor:
            await eventually(lambda: grandchild.exists() and grandchild.read_text() != "")
            pids.append(supervisor.pid_of("deaf"))

    run(scenario)

    assert reports == ["deaf did not end within 0.2 s of being asked; it was killed"]
    assert pids[0] is not None
    assert not is_alive(pids[0])
    wait_for(lambda: not is_alive(int(grandchild.read_text())))  # it is not ours to wait for


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ties a process to its parent's life")
def test_a_killed_supervisor_leaves_nothing(tmp_path: Path) -> None:
    """When the supervisor itself is killed, its children die with it."""
    pid_file = tmp_path / "pid"
    program = (
        "import asyncio, os, sys\n"
        "from pathlib import Path\n"
        "from worker.supervisor import ProcessSpec, Supervisor\n"
        "async def main():\n"
        "    argv = sys.executable, '-c', 'import time; time.sleep(60)'\n"
        "    spec = ProcessSpec('web', argv, dict(os.environ))\n"
        f"    async with Supervisor([spec], logs=Path({str(tmp_path)!r}), report=print) as supervisor:\n"
        "        await supervisor.all_ready()\n"
        f"        Path({str(pid_file)!r}).write_text(str(supervisor.pid_of('web')))\n"
        "        await asyncio.sleep(60)\n"
        "asyncio.run(main())\n"
    )
    process = subprocess.Popen([sys.executable, "-c", program])
    wait_for(lambda: pid_file.exists() and pid_file.read_text() != "")
    child = int(pid_file.read_text())
    assert is_alive(child)

    process.kill()
    process.wait()

    wait_for(lambda: not is_alive(child))


def wait_for(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)
