# SPDX-License-Identifier: Apache-2.0
"""Machines that share pages (`lodge run --share-pages`): what idle ones gave back comes again as it was, whoever touches it
(programs, the guest's kernel, disks), what one stores no other sees, and they can be moved, saved and reset meanwhile."""

import hashlib
import os
import pathlib
import subprocess
import tempfile
import time

from kit import paths
from kit.case import main
from kit.machine import Disk, Machine, Spec

SECONDS = 240
LINES = 1500000
DISK_BYTES = 16 << 20
SHARED = 8 << 20


class Guest:
    """A busybox guest with a disk, in the runtime folder that the others are in."""

    def __init__(self, name, folder, cpus):
        self.name, self.folder = name, folder
        self.disk = folder / f"{name}.raw"
        self.disk.write_bytes(os.urandom(DISK_BYTES))
        self.machine = Machine(
            Spec(name=name, cpus=cpus, memory="256M", append="console=ttyS0 quiet", disks=[Disk(self.disk)],
                 options=("--share-pages",)), ("env", f"XDG_RUNTIME_DIR={folder}"))
        self.count = 0
        self.console = self.machine.console
        self.console.wait_for("^lodge-guest: ready$", SECONDS)
        self.run("stty -echo")

    def run(self, command):
        """A command's output; it must succeed."""
        self.count += 1
        begin = f"begin-{self.name}-{self.count}"
        # The echo of what is typed has no such lines.
        self.console.send(f"echo; echo {begin[:3]}''{begin[3:]}; {command}; echo \"status-{self.count}\"=$?\n")
        start = self.console.wait_for(rf"^{begin}$", SECONDS)
        end = self.console.wait_for(rf"status-{self.count}=(\d+)$", SECONDS)
        output = self.console.text[start.end():end.start()]
        assert end.group(1) == "0", f"{command}: status {end.group(1)}: {output}"
        return output.strip()

    def sum_of(self, path):
        return self.run(f"sha256sum {path}").split()[0]

    def lodge(self, *arguments):
        done = subprocess.run([paths.LODGE, *arguments], env=dict(os.environ, XDG_RUNTIME_DIR=str(self.folder)),
                              stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=SECONDS)
        assert done.returncode == 0, f"lodge {' '.join(arguments)}: status {done.returncode}: {done.stderr}"
        return done.stdout

    def counter(self, name):
        return next(int(line.split()[1]) for line in self.lodge("stats", self.name).splitlines() if line.startswith(name + " "))

    def wait_until_shared(self):
        limit = time.monotonic() + SECONDS
        while self.counter("memory.shared") < SHARED:
            assert time.monotonic() < limit, f"{self.name} shares nothing: {self.lodge('stats', self.name)}"
            time.sleep(1)


def sum_of(data):
    return hashlib.sha256(data).hexdigest()


def idle_machines_share_and_lose_nothing():
    with tempfile.TemporaryDirectory(prefix="lodge-test-") as name:
        folder = pathlib.Path(name)
        one, two = Guest("one", folder, 1), Guest("two", folder, 2)
        with one.machine, two.machine:
            data = b"".join(b"%d\n" % n for n in range(1, LINES + 1))
            for guest in (one, two):
                guest.run(f"seq 1 {LINES} > /tmp/file")
            for guest in (one, two):
                guest.wait_until_shared()
            stored = folder / "lodge" / ".pages"
            assert stored.exists()
            # Both CPUs read at once.
            two.run("(sha256sum /tmp/file > /tmp/other &); sha256sum /tmp/file > /tmp/sum; sleep 5")
            assert [line.split()[0] for line in two.run("cat /tmp/sum /tmp/other").splitlines()] == [sum_of(data)] * 2
            # What one stores is its own.
            one.wait_until_shared()
            changed = bytearray(data)
            for at in range(12345, len(data), 40961):
                changed[at:at + 5] = b"ABCDE"
            one.run(f"at=12345; while [ $at -lt {len(data)} ]; do printf ABCDE | dd of=/tmp/file bs=1 seek=$at conv=notrunc "
                    "2>/dev/null; at=$((at+40961)); done")
            assert one.sum_of("/tmp/file") == sum_of(changed)
            two.wait_until_shared()
            assert two.sum_of("/tmp/file") == sum_of(data)
            # Disks read into memory that was given back, and from it.
            for guest, contents in ((one, changed), (two, data)):
                guest.wait_until_shared()
                assert guest.sum_of("/dev/vda") == sum_of(guest.disk.read_bytes())
                guest.wait_until_shared()
                guest.run("dd if=/tmp/file of=/dev/vda bs=64k conv=notrunc 2>/dev/null; sync")
                assert guest.disk.read_bytes()[:len(contents)] == contents
            # They move while pages are away, and are saved.
            two.wait_until_shared()
            for engine in ("interpret", "translate"):
                two.lodge("engine", "two", engine)
            assert two.sum_of("/tmp/file") == sum_of(data)
            two.wait_until_shared()
            two.lodge("save", "two", str(folder / "two.state"))
            two.machine.wait_end(60)
            two.lodge("restore", "-d", "--share-pages", str(folder / "two.state"))
            try:
                two.wait_until_shared()
                typed = subprocess.run([paths.LODGE, "console", "two"], env=dict(os.environ, XDG_RUNTIME_DIR=name), text=True,
                                       input="sha256sum /tmp/file; poweroff -f\n", capture_output=True, timeout=SECONDS)
                assert sum_of(data) in typed.stdout, typed
            finally:
                subprocess.run([paths.LODGE, "kill", "two"], env=dict(os.environ, XDG_RUNTIME_DIR=name), capture_output=True)
            # A reset finds memory whole.
            one.wait_until_shared()
            one.lodge("reset", "one")
            one.console.wait_for("^lodge-guest: ready$", SECONDS)
            one.lodge("kill", "one")
            one.machine.wait_end(60)
        assert not stored.exists(), "the last machine has left the store"


main(idle_machines_share_and_lose_nothing)
