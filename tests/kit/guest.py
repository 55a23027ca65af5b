# SPDX-License-Identifier: Apache-2.0
"""Guests that run commands: the busybox initramfs with a script, and Debian with a root shell on its console."""

import base64
import pathlib
import re
import tempfile

from kit import paths
from kit.archive import cpio_archive, tar_disk
from kit.machine import Disk, Machine, Spec

BOOT_SECONDS = 240


def run_busybox(script, seconds, files=(), prefix=(), at_end=None, **options):
    """Boots the busybox initramfs, runs the shell script in it and waits for the power-off.
    `files` are (name, bytes) to be found under /lodge; `prefix` runs the machine's command as its arguments;
    `at_end` is called with the machine after its end. Returns (exit status of the script, its output)."""
    with tempfile.TemporaryDirectory(prefix="lodge-test-") as folder:
        initrd = pathlib.Path(folder) / "initrd"
        entries = [("lodge/run", 0o755, script.encode())] + [(f"lodge/{name}", 0o755, data) for name, data in files]
        first = paths.INITRD.read_bytes()
        initrd.write_bytes(first + bytes(-len(first) % 4) + cpio_archive(entries))
        options.setdefault("append", "console=ttyS0 quiet")
        with Machine(Spec(initrd=initrd, **options), prefix) as machine:
            begin = machine.console.wait_for("^lodge-guest: ready$", seconds)
            end = machine.console.wait_for(r"^lodge-guest: exit status (\d+)$", seconds)
            output = machine.console.text[begin.end():end.start()].strip("\n")
            status = machine.wait_end(60)
            if at_end:
                at_end(machine)
            assert status == 0, f"the machine's exit status is {status}, not 0: {machine.errors}"
    return int(end.group(1)), output


class Debian:
    """Debian booted to a root shell. A context manager; what it writes to its disk is dropped.

        with Debian(cpus=2) as debian:
            debian.check("uname -r", 10)
    """

    def __init__(self, image=paths.DEBIAN, payload=None, disks=(), append="", login=True, **options):
        """`payload`: a folder of the host, unpacked to /payload; `disks`: further ones, after it."""
        self._folder = tempfile.TemporaryDirectory(prefix="lodge-test-")
        self._count = 0
        all_disks = [Disk(image)]
        if payload:
            archive = pathlib.Path(self._folder.name) / "payload.tar"
            tar_disk(payload, archive)
            all_disks.append(Disk(archive, readonly=True))
        options = {"memory": "1G", "net": "user", "cpus": 2, "snapshot": True} | options
        self.machine = Machine(Spec(disks=[*all_disks, *disks], append=f"console=ttyS0 root=/dev/vda rw {append}".strip(),
                                    **options))
        try:
            if login:
                self.login()
                if payload:
                    self.check("mkdir /payload && tar -xf /dev/vdb -C /payload", 120)
        except BaseException:
            self.__exit__()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.machine.__exit__()
        self._folder.cleanup()

    def login(self, seconds=BOOT_SECONDS):
        """Waits for the automatic login and makes the shell talk to a program: no prompt, no echo, no line editing."""
        console = self.machine.console
        console.wait_for(r"root@lodge:~# ", seconds)
        console.send("stty -echo; dmesg -n 1; export TERM=dumb PAGER=cat SYSTEMD_COLORS=0 SYSTEMD_URLIFY=0 PS1= PS2=; "
                     "exec bash --norc --noprofile --noediting\n")
        console.send("set +m; echo shell-\\ready\n")
        console.wait_for("shell-ready$", 60)

    def run(self, command, seconds):
        """Runs a shell command; returns (exit status, standard output and error together)."""
        self._count += 1
        mark = f"@@{self._count}@@"
        console = self.machine.console
        start = len(console.text)
        console.send(f"{{\n{command}\n}} </dev/null 2>&1; status=$?; echo; echo '{mark}'$status\n")
        match = console.wait_for(rf"^{re.escape(mark)}(\d+)$", seconds)
        return int(match.group(1)), console.text[start:match.start()].strip("\n")

    def check(self, command, seconds):
        """Runs a command that must succeed; returns its output."""
        status, output = self.run(command, seconds)
        assert status == 0, f"in the guest: {command}\nexit status {status}, output:\n{output[-4000:]}"
        return output

    def put(self, path, data):
        """Writes a small file in the guest, through the console."""
        lines = base64.encodebytes(data.encode() if isinstance(data, str) else data).decode()
        self.check(f"base64 -d >{path} <<'END'\n{lines}END", 60)

    def power_off(self, seconds=120):
        """Shuts down from inside; returns the machine's exit status."""
        self.machine.console.send("poweroff\n")
        return self.machine.wait_end(seconds)
