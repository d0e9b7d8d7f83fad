"""Labs come and go without a trace, whatever becomes of their owner, and without root."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import natlab
import pytest
from natlab import kernel

LAB = Path(__file__).parent
NOBODY = 65534


def _traces(owner=""):
    """Names of namespaces and folders that a process has left."""
    folders = (kernel.NAMESPACES, kernel.NAMESPACE_FILES)
    names = {name for folder in folders if folder.is_dir() for name in os.listdir(folder)}
    return {name for name in names if name.startswith(f"natlab{owner}")}


def test_closing_leaves_nothing_behind(lab):
    with natlab.Lab() as other:
        host = other.add_host("host", other.add_nat("home"))
        host.link.shape(delay=1)
        script = "setsid sleep 1000 & setsid sleep 1000 & exit 0"
        assert host.popen(["sh", "-c", script]).wait() == 0
        pids = kernel.run(["ip", "netns", "pids", host.namespace]).split()
        pids += kernel.run(["ip", "netns", "pids", other.switch]).split()
        assert len(pids) == 3
        mine = other.id
        assert any(name.startswith(mine) for name in _traces())
    assert not any(name.startswith(mine) for name in _traces())
    lab.until(lambda: not any(kernel.is_alive(int(pid)) for pid in pids), what="all killed")


def test_the_callers_network_is_not_touched(lab):
    with open("/proc/thread-self/ns/net") as before:
        lab.add_host("host", lab.add_nat("home")).run(["true"])
        with open("/proc/thread-self/ns/net") as after:
            assert os.path.sameopenfile(before.fileno(), after.fileno())
    assert "natlab" not in kernel.run(["ip", "link", "show"])


def test_two_labs_at_once_are_apart(lab):
    with natlab.Lab() as other:
        a, b = lab.add_host("host"), other.add_host("host")
        assert a.ip == b.ip
        with a.socket() as ours, b.socket() as theirs:
            assert not natlab.reaches(ours, theirs.getsockname(), theirs, timeout=0.1)


def test_names_are_checked_and_resolve(lab):
    host = lab.add_host("host")
    for name in ("host", "Host", "no/slash", ""):
        with pytest.raises(ValueError, match="bad or repeated"):
            lab.add_host(name)
    with pytest.raises(KeyError):
        lab.router("host")
    assert host.run(["getent", "hosts", "example.org"], check=False).returncode == 2


def test_what_a_killed_owner_leaves_is_cleaned(lab):
    script = (
        f"import sys; sys.path.insert(0, {str(LAB)!r})\n"
        "import natlab\n"
        "lab = natlab.Lab()\n"
        "host = lab.add_host('host')\n"
        "host.link.shape(delay=1)\n"
        "print(host.popen(['sleep', '1000']).pid, host.link._shaper.pid, flush=True)\n"
        "sys.stdin.read()\n"
    )
    owner = subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with owner:
        pids = [int(pid) for pid in owner.stdout.readline().split()]
        assert len(_traces(owner.pid)) == 3
        owner.send_signal(signal.SIGKILL)
    lab.until(lambda: not kernel.is_alive(pids[1]), what="the shaper's own end")
    natlab.clean()
    assert not _traces(owner.pid)
    lab.until(lambda: not kernel.is_alive(pids[0]), what="the program's end")


def test_until_returns_the_answer_or_says_what_never_came(lab):
    answers = iter((0, 0, 7))
    assert lab.until(lambda: next(answers)) == 7
    with pytest.raises(TimeoutError, match="a miracle"):
        lab.until(lambda: False, timeout=0.05, what="a miracle")


def _has_unprivileged_user():
    ranges = [line.split() for line in Path("/proc/self/uid_map").read_text().splitlines()]
    return any(int(first) <= NOBODY < int(first) + int(size) for first, _, size in ranges)


def _interpreter_for(identity):
    """An interpreter that this user can run, and the lab with it: not in root's home folder."""
    usable = (
        f"import sys, os; sys.exit(sys.version_info < (3, 11) or not os.access({str(LAB)!r}, 4))"
    )
    for path in (
        os.path.realpath(sys.executable),
        shutil.which("python3", path=kernel.SYSTEM_FOLDERS),
    ):
        with suppress(OSError):
            if (
                path
                and not subprocess.run([path, "-c", usable], check=False, **identity).returncode
            ):
                return path
    pytest.skip("no interpreter and checkout that an unprivileged user can read")


@pytest.mark.parametrize("user", [None, NOBODY])
@pytest.mark.usefixtures("_namespaces")
def test_without_root_a_program_runs_in_namespaces_of_its_own(user):
    script = (
        f"import sys; sys.path.insert(0, {str(LAB)!r})\n"
        "import natlab\n"
        "with natlab.Lab() as lab:\n"
        "    server = lab.add_host('server')\n"
        "    a, b = (lab.add_host(n, lab.add_nat('n' + n)) for n in 'ab')\n"
        "    a.link.shape(delay=5)\n"
        "    a.congestion('cubic')\n"
        "    assert natlab.udp_punch(a, b, server) is not None\n"
        "    lab.router('na').flush()\n"
        "    a.move('public')\n"
        "    assert 0.01 <= natlab.echo_rtt(a, server, samples=5).p50 < 0.1\n"
        "    print(natlab.plain_tcp_copy(a, server, 0.2, 'cubic', warm_up=0.1) > 0)\n"
    )
    command = [os.path.realpath(sys.executable), str(LAB), "rootless"]
    identity = {}
    if user is not None:
        if os.geteuid() or not _has_unprivileged_user():
            pytest.skip("not root of the machine: cannot become another user")
        identity = {"user": user, "group": user, "extra_groups": []}
        command[0] = _interpreter_for(identity)
        trial = [*command, "true"]
        done = subprocess.run(trial, check=False, capture_output=True, text=True, **identity)
        if done.returncode:
            pytest.skip(f"no user namespaces for unprivileged users: {done.stderr.strip()}")
    before = _traces()
    done = subprocess.run(
        [*command, command[0], "-c", script],
        check=False,
        capture_output=True,
        text=True,
        timeout=15,
        **identity,
    )
    assert (done.returncode, done.stdout.strip()) == (0, "True"), done.stderr
    assert _traces() <= before
