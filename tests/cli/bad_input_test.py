#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Bad input to the real program: one line that names the thing and the fix, exit status 2, nothing left behind.

Usage errors that need no machine are in usage_test.py."""

import fcntl
import os
import pathlib
import shutil
import socket
import struct
import subprocess
import sys
import unittest

from kit import LODGE, LodgeTest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "kit"))
import paths  # noqa: E402

F_OFD_SETLK = 37  # fcntl(2); Python has no name for it


def processes(folder):
    """Processes whose command line or environment names the folder: what a test left behind."""
    found = []
    for entry in pathlib.Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                if folder.encode() in (entry / "environ").read_bytes():
                    found.append((entry / "cmdline").read_bytes().replace(b"\0", b" ").decode())
            except OSError:
                pass
    return found


class BadInput(LodgeTest):
    def setUp(self):
        super().setUp()
        self.kernel = str(paths.KERNELS / "hello.elf")
        self.disk = self.file("disk.img", 1 << 20)

    def file(self, name, size, data=b""):
        path = os.path.join(self.folder, name)
        with open(path, "wb") as out:
            out.write(data)
            out.truncate(size)
        return path

    def run_fails(self, *arguments, texts, kernel=None):
        for detach in ([], ["-d"]):
            result = self.lodge("run", *detach, "--kernel", kernel or self.kernel, "--memory", "64M", *arguments)
            self.assertFails(result, 2, *texts)
            self.assertIn("; ", result.stderr, "no word on how to mend it")
            self.assertEqual(self.machines(), [])
            self.assertEqual(processes(self.folder), [])

    def test_kernel(self):
        self.run_fails(kernel="/nonexistent/vmlinuz", texts=["/nonexistent/vmlinuz", "No such file", "--kernel"])
        self.run_fails(kernel=self.folder, texts=[self.folder, "Is a directory"])
        self.run_fails(kernel=self.file("empty", 0), texts=["is empty", "bzImage"])
        self.run_fails(kernel=self.file("text", 100, b"#!/bin/sh\n"), texts=["is not a kernel", "bzImage"])

    def test_truncated_kernel(self):
        with open(self.kernel, "rb") as whole:
            self.run_fails(kernel=self.file("half.elf", 4100, whole.read(4100)), texts=["half.elf", "truncated"])
        with open(paths.VMLINUZ, "rb") as whole:
            start = whole.read(1 << 20)
        for size in (600, 5000, 1 << 20):
            self.run_fails(kernel=self.file("half", size, start[:size]), texts=["half", "truncated", "again"])

    def test_initrd(self):
        self.run_fails("--initrd", "/nonexistent", texts=["initrd", "/nonexistent", "No such file"])
        big = self.file("initrd", 80 << 20)
        self.run_fails("--initrd", big, "--memory", "128M", kernel=str(paths.VMLINUZ),
                       texts=["initrd", "does not fit into 128 MiB", "-m"])
        self.run_fails("--initrd", big, texts=["does not fit into 64 MiB", "-m"])

    def test_sizes(self):
        self.run_fails("--cpus", "0", texts=["0 CPUs", "1 to 64"])
        self.run_fails("--cpus", "65", texts=["65 CPUs", "1 to 64"])
        self.run_fails("--memory", "10M", texts=["10 MiB of memory", "16M"])
        self.run_fails("--memory", "0M", texts=["0 B of memory", "16M"])
        self.run_fails("--memory", "20M", kernel=str(paths.VMLINUZ), texts=["does not fit into 20 MiB", "-m"])
        self.run_fails("--memory", "2T", texts=["2 TiB of memory", "1T"])

    def test_unknown_option(self):
        self.run_fails("--frobnicate", texts=["unknown option '--frobnicate'", "--help"])
        self.run_fails("--cpu", "486", texts=["486", "x86-64-v3"])

    def test_what_another_engine_has(self):
        for option in ("--nested", "--hyperv", "--hugepages"):
            self.run_fails("--engine", "translate", option, texts=[f"{option}: engine translate cannot do that", "without it"])
        self.run_fails("--cpu", "host,turbo", texts=["host,turbo", "'nested' and 'hyperv'"])
        self.run_fails("--cpu", "host,tsc-frequency=20M", texts=["tsc-frequency=20M", "from 100M to 25.5G"])

    def test_missing_disk(self):
        self.run_fails("--disk", "/nonexistent.img", texts=["'/nonexistent.img'", "No such file", "--disk"])
        self.run_fails("--disk", self.folder, texts=[self.folder, "--disk"])

    def test_locked_disk(self):
        with open(self.disk, "r+b") as held:
            fcntl.fcntl(held, F_OFD_SETLK, struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
            self.run_fails("--disk", self.disk, texts=[self.disk, "in use by", str(os.getpid()), "--snapshot"])
        machine = self.start("--disk", self.disk, "--name", "first", kernel=str(paths.KERNELS / "spin.elf"))
        self.eventually(lambda: "running" in self.lodge("ps").stdout)
        result = self.lodge("run", "--kernel", self.kernel, "--disk", self.disk)
        self.assertFails(result, 2, self.disk, "in use by")
        self.lodge("kill", "first")
        machine.communicate(timeout=20)

    def start(self, *arguments, kernel, **options):
        return subprocess.Popen([LODGE, "run", "--kernel", kernel, *arguments], env=self.env, stdin=subprocess.DEVNULL,
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)

    def test_read_only_disk(self):
        os.chmod(self.disk, 0o444)
        if os.geteuid() != 0:
            self.run_fails("--disk", self.disk, texts=[self.disk, "Permission denied", "readonly"])
            return
        # Root may write everything: become somebody else, with a copy of the program where they can read it.
        shutil.copy(LODGE, self.folder + "/lodge")
        shutil.copy(self.kernel, self.folder)
        own = os.path.join(self.folder, "own")
        os.mkdir(own, 0o700)
        for path in (self.folder, own):
            os.chown(path, 65534, 65534)
        command = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", os.path.join(self.folder, "lodge"), "run",
                   "--kernel", os.path.join(self.folder, "hello.elf"), "--memory", "64M", "--disk", self.disk]
        result = subprocess.run(command, env=dict(self.env, XDG_RUNTIME_DIR=own), stdin=subprocess.DEVNULL,
                                capture_output=True, text=True, timeout=60)
        os.chown(self.folder, 0, 0)
        self.assertFails(result, 2, self.disk, "Permission denied", "readonly")
        self.assertEqual([n for n in os.listdir(own + "/lodge") if not n.startswith(".")], [])

    def test_forward_to_a_used_port(self):
        for family, kind, name in ((socket.AF_INET, socket.SOCK_STREAM, "tcp"), (socket.AF_INET, socket.SOCK_DGRAM, "udp")):
            with socket.socket(family, kind) as taken:
                taken.bind(("127.0.0.1", 0))
                if kind == socket.SOCK_STREAM:
                    taken.listen()
                port = taken.getsockname()[1]
                self.run_fails("--net", f"user,forward={name}:127.0.0.1:{port}:22",
                               texts=["--net: ", f"forward {name} 127.0.0.1:{port}", "Address already in use", "another host port"])

    def board_fails(self, *arguments, texts, verb="run"):
        """On the pc board, which starts from its drives."""
        for detach in ([], ["-d"] if verb == "run" else ["-daemonize"]):
            result = self.lodge(verb, *detach, *arguments)
            self.assertFails(result, 2, *texts)
            self.assertIn("; ", result.stderr, "no word on how to mend it")
            self.assertEqual(self.machines(), [])
            self.assertEqual(processes(self.folder), [])

    def test_media_that_cannot_be(self):
        self.board_fails("--cdrom", "/nonexistent.iso", texts=["--cdrom", "'/nonexistent.iso'", "No such file", "ISO 9660"])
        self.board_fails("--cdrom", self.folder, texts=["--cdrom", self.folder, "neither a regular file"])
        self.board_fails("--cdrom", self.file("empty.iso", 0), texts=["--cdrom", "empty.iso", "empty; name an image", "ISO 9660"])
        self.board_fails("-cdrom", "/nonexistent.iso", verb="qemu", texts=["-cdrom", "'/nonexistent.iso'", "No such file"])
        self.board_fails("-hda", "/nonexistent.img", verb="qemu", texts=["lodge: -hda: ", "the path given to -hda"])
        self.board_fails("-drive", "file=/nonexistent.img", verb="qemu", texts=["lodge: -drive: ", "the path given to -drive"])
        self.board_fails("/nonexistent.img", verb="qemu", texts=["lodge: the disk: ", "No such file"])
        self.board_fails("-fda", "/nonexistent.img", verb="qemu", texts=["lodge: -fda: ", "raw image of a floppy"])
        self.board_fails("-hda", self.disk, "-m", "5x", verb="qemu", texts=["-m: '5x' is not a size", "512M"])
        self.board_fails("-hda", self.disk, "-smp", "0", verb="qemu", texts=["0 CPUs; -smp takes 1 to 64"])
        self.board_fails("--floppy", self.disk, texts=["--floppy", "1048576 bytes", "1440K"])
        self.board_fails("--floppy", "/nonexistent", texts=["--floppy", "'/nonexistent'", "No such file"])
        self.board_fails("--bios", "/nonexistent", texts=["--bios", "'/nonexistent'", "64K"])
        if os.geteuid() != 0:   # root reads everything
            os.chmod(self.disk, 0)
            self.board_fails("--cdrom", self.disk, texts=["--cdrom", self.disk, "Permission denied"])

    def test_unknown_boards_and_devices(self):
        self.board_fails("--board", "toaster", texts=["--board 'toaster'", "micro, pc, q35"])
        self.board_fails("--vga", "what", "--disk", self.disk, texts=["--vga 'what'", "std, virtio, none"])
        self.board_fails("--boot", "x", texts=["boot order 'x'", "n (network)"])
        self.board_fails("-M", "toaster", verb="qemu", texts=["-M 'toaster'", "pc and q35"])
        self.board_fails("-device", "toaster", verb="qemu", texts=["-device 'toaster'", "there are usb-tablet"])
        self.board_fails("-net", "nic,model=toaster", verb="qemu", texts=["-net nic,model=toaster", "no such network card", "there is virtio"])
        self.board_fails("-vga", "what", verb="qemu", texts=["-vga 'what'", "there are std"])

    def test_two_devices_at_one_place(self):
        place = self.disk + ",bus=ide,unit=1"
        self.board_fails("--disk", place, "--disk", place, texts=["two drives on IDE unit 1", "another unit="])
        self.board_fails("-device", "ahci,addr=4", "-device", "virtio-scsi-pci,addr=4", verb="qemu",
                         texts=["-device virtio-scsi-pci", "ahci is at addr=4", "another address"])

    def test_files_of_vnc_that_are_missing(self):
        self.board_fails("--board", "pc", "--vnc", f"unix:{self.folder}/vnc,password-file=/nonexistent/p",
                         texts=["--vnc: open '/nonexistent/p'", "No such file", "password-file= takes"])
        self.board_fails("--board", "pc", "--vnc", f"unix:{self.folder}/vnc,tls-cert=/nonexistent/c,tls-key=/nonexistent/k",
                         texts=["--vnc: ", "/nonexistent/c", "No such file", "PEM files"])

    def test_a_vnc_port_in_use(self):
        with socket.socket() as taken:
            for display in range(50, 99):
                try:
                    taken.bind(("127.0.0.1", 5900 + display))
                    break
                except OSError:
                    continue
            taken.listen()
            self.board_fails("--board", "pc", "--vnc", f":{display}",
                             texts=["--vnc", f"(display {display}) is in use", "another display"])


if __name__ == "__main__":
    unittest.main()
