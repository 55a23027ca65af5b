# SPDX-License-Identifier: Apache-2.0
"""The verbs against a real guest in a real terminal (tmux), and `lodge doctor`."""

import json
import os
import pathlib
import shlex
import subprocess
import tempfile
import time

from kit import paths
from kit.case import Skip, main
from kit.machine import Spec

ENGINE = Spec().engine


class Terminal:
    """A tmux terminal whose lodge commands see only this test's machines."""

    def __init__(self):
        self.folder = tempfile.TemporaryDirectory(prefix="lodge-test-")
        self.environment = dict(os.environ, XDG_RUNTIME_DIR=self.folder.name, LC_ALL="C.UTF-8")
        self.tmux("-f", "/dev/null", "new-session", "-d", "-x", "100", "-y", "30", "env", "PS1=prompt> ", "dash", "-i")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        names = self.lodge("ps", "-q").stdout.split()
        if names:
            self.lodge("kill", *names)
        self.tmux("kill-server")
        self.folder.cleanup()

    def tmux(self, *arguments):
        return subprocess.run(["tmux", "-S", f"{self.folder.name}/tmux", *arguments], env=self.environment,
                              capture_output=True, text=True, timeout=30).stdout

    def lodge(self, *arguments, timeout=120):
        return subprocess.run([paths.LODGE, *arguments], env=self.environment, stdin=subprocess.DEVNULL, capture_output=True,
                              text=True, timeout=timeout)

    def type(self, line):
        self.tmux("send-keys", "-l", line)
        self.tmux("send-keys", "Enter")

    def screen(self):
        return self.tmux("capture-pane", "-p", "-J", "-S", "-300")

    def wait_for(self, text, seconds=240, count=1):
        deadline = time.monotonic() + seconds
        while self.screen().count(text) < count:
            assert time.monotonic() < deadline, f"'{text}' did not come; the screen:\n{self.screen()}"
            time.sleep(0.1)


def guest(*options):
    return [str(paths.LODGE), "run", "--engine", ENGINE, "--kernel", str(paths.VMLINUZ), "--initrd", str(paths.INITRD), "--memory",
            "256M", "--net", "none", *options]


def in_the_foreground():
    if subprocess.run(["which", "tmux"], capture_output=True).returncode != 0:
        raise Skip("tmux is not installed")
    with Terminal() as terminal:
        terminal.type(shlex.join(guest("--name", "fore", "--cpus", "2", "--append", "console=ttyS0 quiet")) + "; echo status=$?")
        terminal.wait_for("lodge-guest: ready")
        terminal.type("echo guest-$((40 + 2)) $(nproc)")
        terminal.wait_for("guest-42 2", 60)
        table = terminal.lodge("ps").stdout.splitlines()[1].split()
        assert table[:2] == ["fore", "running"] and table[3] == "2", table
        # Ctrl-C is the guest's; the monitor is Lodge's.
        terminal.type("sleep 1000")
        time.sleep(1)
        terminal.tmux("send-keys", "C-c")
        terminal.type("echo after-$((1 + 1))")
        terminal.wait_for("after-2", 60)
        terminal.tmux("send-keys", "C-]", "s")
        terminal.wait_for("[lodge] fore: running on", 30)
        terminal.tmux("send-keys", "C-]", "r")
        terminal.wait_for("lodge-guest: ready", count=2)
        terminal.type("poweroff -f")
        terminal.wait_for("status=0", 60)


def follows_the_window():
    """With the virtio console the guest knows the terminal's size, and learns of each change."""
    with Terminal() as terminal:
        terminal.type(shlex.join(guest("--console", "virtio", "--append", "console=ttyS0 console=hvc0 quiet")))
        terminal.wait_for("lodge-guest: ready")
        terminal.type("stty size </dev/hvc0")
        terminal.wait_for("30 100", 60)
        terminal.tmux("resize-window", "-x", "90", "-y", "35")
        time.sleep(1)
        terminal.type("stty size </dev/hvc0")
        terminal.wait_for("35 90", 60)
        terminal.tmux("send-keys", "C-]", "q")
        terminal.wait_for("prompt>", 30, count=2)


def in_the_background():
    with Terminal() as terminal:
        command = guest("-d", "--name", "back", "--append", "console=ttyS0 quiet")
        started = subprocess.run(command, env=terminal.environment, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        assert (started.returncode, started.stdout) == (0, "back\n"), started
        again = subprocess.run(command, env=terminal.environment, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        assert again.returncode == 2 and "'back' is taken" in again.stderr, again
        terminal.type(f"{paths.LODGE} console back")
        terminal.wait_for("lodge-guest: ready")
        terminal.type("echo through-$((3 * 3))")
        terminal.wait_for("through-9", 60)
        terminal.tmux("send-keys", "C-]", "d")
        terminal.wait_for("prompt>", 30, count=2)

        counters = json.loads(terminal.lodge("stats", "--json", "back").stdout)["counters"]
        assert counters["memory.size"] == 256 << 20 and 0 < counters["memory.resident"] <= 256 << 20, counters
        assert any(name.startswith("vcpu0.") for name in counters), counters
        assert terminal.lodge("reset", "back").returncode == 0
        terminal.type(f"{paths.LODGE} console back")
        terminal.wait_for("attached to back", 30, count=2)
        terminal.wait_for("lodge-guest: ready", count=2)
        terminal.tmux("send-keys", "C-]", "d")

        assert "is running" in terminal.lodge("rm", "back").stderr
        assert terminal.lodge("kill", "back").returncode == 0
        assert terminal.lodge("ps", "-q").stdout == ""
        assert "killed" in terminal.lodge("ps", "-a").stdout
        assert terminal.lodge("rm", "back").returncode == 0
        assert terminal.lodge("ps", "-aq").stdout == ""
        left = [name for name in os.listdir(pathlib.Path(terminal.folder.name) / "lodge") if not name.startswith(".")]
        assert left == [], left


def doctor():
    with Terminal() as terminal:
        answer = terminal.lodge("doctor")
        assert answer.returncode == 0, answer
        for word in ("hardware virtualization", "/dev/kvm", "memory", "namespaces", "tap", "engine"):
            assert word in answer.stdout.lower(), f"'{word}' is not in:\n{answer.stdout}"
        facts = json.loads(terminal.lodge("doctor", "--json").stdout)
        assert facts["engine"]["choice"] in ("translate", "interpret", "kvm")
        flags = open("/proc/cpuinfo").read().split()
        assert ("vmx" in flags or "svm" in flags) or facts["hardwareVirtualization"]["grade"] != "ok"


main(in_the_foreground, follows_the_window, in_the_background, doctor)
