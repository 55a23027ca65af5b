# SPDX-License-Identifier: Apache-2.0
"""Starting machines: under `lodge run`, or under QEMU to check a test itself (LODGE_TEST_WITH=qemu)."""

import ctypes
import dataclasses
import itertools
import os
import pathlib
import signal
import subprocess
import tempfile
import time

from kit import paths, qemu
from kit.console import Console

WITH_QEMU = os.environ.get("LODGE_TEST_WITH") == "qemu"
_numbers = itertools.count(1)


@dataclasses.dataclass
class Disk:
    path: pathlib.Path
    readonly: bool = False
    ide: bool = False


@dataclasses.dataclass
class Spec:
    """What to run; the fields are `lodge run`'s options."""
    kernel: pathlib.Path | None = paths.VMLINUZ   # None: firmware starts from the disks
    initrd: pathlib.Path | None = paths.INITRD
    append: str = "console=ttyS0"
    disks: list = dataclasses.field(default_factory=list)
    cpus: int = 1
    memory: str = "512M"
    net: str = "none"            # none, user, or user,forward=tcp:127.0.0.1:PORT:PORT
    engine: str = os.environ.get("LODGE_TEST_ENGINE", "auto")
    snapshot: bool = False
    no_reboot: bool = False
    name: str | None = None
    options: tuple = ()          # further options of lodge run


def _die_with_parent():
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def runtime_environment(folder):
    """The environment of lodge commands that see only the machines of this test."""
    return dict(os.environ, XDG_RUNTIME_DIR=str(folder))


def lodge_command(machine):
    spec = machine.spec
    command = [str(paths.LODGE), "run", "--name", machine.name, "--cpus", str(spec.cpus),
               "--memory", spec.memory, "--engine", spec.engine, "--net", spec.net]
    if spec.kernel:
        command += ["--kernel", str(spec.kernel)]
    if spec.kernel and spec.initrd:
        command += ["--initrd", str(spec.initrd)]
    if spec.kernel and spec.append:
        command += ["--append", spec.append]
    for disk in spec.disks:
        command += ["--disk", f"{disk.path}{',readonly' if disk.readonly else ''}{',bus=ide' if disk.ide else ''}"]
    if spec.snapshot:
        command.append("--snapshot")
    if spec.no_reboot:
        command.append("--no-reboot")
    return command + list(spec.options)


class Machine:
    """A running machine. Use as a context manager: it is killed at the end if it still runs."""

    def __init__(self, spec, prefix=()):
        """`prefix`: a command that runs the machine's own as its arguments."""
        self.spec = spec
        number = next(_numbers)
        self.name = spec.name or f"test{os.getpid()}-{number}"
        self._folder = tempfile.TemporaryDirectory(prefix="lodge-test-")
        self.runtime = pathlib.Path(self._folder.name)
        command = [*prefix, *self.command()]
        paths.CONSOLES.mkdir(parents=True, exist_ok=True)
        log = paths.CONSOLES / f"{os.environ.get('LODGE_TEST_NAME', 'test')}-{os.getpid()}-{number}.log"
        self.started = time.monotonic()
        self._errors = open(self.runtime / "stderr", "wb")
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, bufsize=0,
                                        env=runtime_environment(self.runtime), preexec_fn=_die_with_parent)
        self.console = Console(self.process.stdout.fileno(), self.process.stdin.fileno(), log)

    def command(self):
        return qemu.command(self.spec, self.runtime) if WITH_QEMU else lodge_command(self)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.kill()
        self._errors.close()
        self._folder.cleanup()

    def kill(self):
        """SIGKILL, as a crash of the host would end it."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.console.join(10)

    def wait_end(self, seconds):
        """The process's exit status; fails if it does not end in time."""
        try:
            status = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"machine {self.name} still runs after {seconds} s; its console:\n"
                                 f"{self.console.tail()}") from None
        self.console.join(10)
        return status

    @property
    def errors(self):
        """What the process wrote to its standard error."""
        return (self.runtime / "stderr").read_text(errors="replace")

    def power_button(self):
        if WITH_QEMU:
            qemu.qmp(self.runtime, "system_powerdown")
        else:
            self.lodge("stop", self.name, timeout=150)

    def reset(self):
        if WITH_QEMU:
            qemu.qmp(self.runtime, "system_reset")
        else:
            self.lodge("reset", self.name)

    def lodge(self, *arguments, timeout=30):
        """Runs another lodge command that sees this machine; returns its standard output. It must succeed."""
        done = subprocess.run([paths.LODGE, *arguments], env=runtime_environment(self.runtime), stdin=subprocess.DEVNULL,
                              capture_output=True, text=True, timeout=timeout)
        assert done.returncode == 0, f"lodge {' '.join(arguments)}: status {done.returncode}: {done.stderr}"
        return done.stdout
