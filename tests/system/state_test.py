# SPDX-License-Identifier: Apache-2.0
"""Machines that move: between engines while they run, and through a state file into another process, with a guest that
computes, writes files with checksums and holds a TCP connection.

    state_test.py engines | restore | pc | drives | screen | debian | speed"""

import hashlib
import json
import os
import pathlib
import re
import socket
import struct
import subprocess
import sys
import tarfile
import tempfile
import threading
import time

from kit import paths
from kit.archive import cpio_archive
from kit.boot_disk import initrd_with, make_boot_disk
from kit.busy_guest import PROGRESS, WORK, compiler_files
from kit.case import main
from kit.console import ConsoleTimeout
from kit.guest import Debian
from kit.machine import Disk, Machine, Spec
from kit.rfb import RAW, Rfb

from pc_gpu_test import MODULES as GPU, SCRIPT as DRAW, picture_is_right
from pc_pointer_test import SCRIPT as POINTER, USB

HOST = "10.0.2.2"
ENGINES = ("translate", "interpret")


class Counter:
    """A server that takes lines "count N" on one connection and answers each with its number; they must come in order."""

    def __init__(self):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.last, self.connections, self.broken = 0, 0, None
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self):
        while True:
            try:
                peer, _ = self.listener.accept()
            except OSError:
                return
            self.connections += 1
            with peer, peer.makefile("rw") as lines:
                try:
                    for line in lines:
                        number = int(line.split()[1])
                        if number != self.last + 1:
                            self.broken = f"{number} came after {self.last}"
                        self.last = number
                        lines.write(f"{number}\n")
                        lines.flush()
                except (OSError, ValueError, IndexError) as error:
                    self.broken = self.broken or str(error)


def make_disk(path, size):
    with open(path, "wb") as disk:
        disk.truncate(size)
    subprocess.run(["/sbin/mke2fs", "-q", "-t", "ext4", path], check=True, stdin=subprocess.DEVNULL)


def with_script(folder, script, files=()):
    """An initramfs that runs the script; `files`: more for it, (name, mode, bytes)."""
    first = paths.INITRD.read_bytes()
    initrd = pathlib.Path(folder) / "initrd"
    initrd.write_bytes(first + bytes(-len(first) % 4) + cpio_archive([("lodge/run", 0o755, script.encode()), *files]))
    return initrd


MENU = """serial --unit=0
terminal_output serial console
terminal_input serial console
echo 'choose now'
read answer
linux /boot/vmlinuz console=ttyS0 quiet
initrd /boot/initrd.img
boot
"""


def progress(machine, seconds=120):
    try:
        match = machine.console.wait_for(PROGRESS, seconds)
    except ConsoleTimeout as late:
        raise AssertionError(f"{late}\n{machine.errors}") from None
    return [float(value) for value in match.groups()]


def nothing_broke(machine):
    text = machine.console.text
    assert "BROKEN" not in text, re.search("BROKEN.*", text).group()


class Restored(Machine):
    """A machine that goes on from a state file."""

    def __init__(self, state, options=()):
        self.state, self.options = state, options
        super().__init__(Spec())

    def command(self):
        return [str(paths.LODGE), "restore", str(self.state), "--name", self.name, *self.options]


def work_spec(folder, counter, **options):
    disk = pathlib.Path(folder) / "disk"
    make_disk(disk, 64 << 20)
    script = WORK.replace("HOST", HOST).replace("PORT", str(counter.port))
    return Spec(initrd=with_script(folder, script, compiler_files()), append="console=ttyS0 quiet", disks=[Disk(disk)], net="user",
                memory="192M", **options)


def translations(machine):
    return json.loads(machine.lodge("stats", "--json", machine.name))["counters"]["vcpu0.translations"]


def a_busy_machine_moves_between_engines():
    counter = Counter()
    with tempfile.TemporaryDirectory(prefix="lodge-test-") as folder:
        with Machine(work_spec(folder, counter, engine="translate", cpus=2)) as machine:
            progress(machine, 240)
            before, started = progress(machine), time.time()
            translated = translations(machine)
            for turn in range(10):
                engine = ENGINES[(turn + 1) % 2]
                assert machine.lodge("engine", machine.name, engine, timeout=90) == f"{machine.name} runs on {engine}\n"
                assert machine.lodge("ps").split("\n")[1].count(engine) == 1, machine.lodge("ps")
                for _ in range(2):
                    last = progress(machine)
            passed = time.time() - started
            assert translations(machine) > translated > 0, "counters go on over changes of the engine"
            nothing_broke(machine)
            assert "LOST" not in machine.console.text, machine.console.tail()
            for index, what in ((3, "files"), (4, "sums"), (5, "counts"), (6, "objects")):
                assert last[index] > before[index], f"no {what} since the first switch: {before} {last}"
            assert counter.connections == 1 and counter.broken is None, (counter.connections, counter.broken)
            up, date = last[1] - before[1], last[2] - before[2]
            assert abs(up - passed) < 3 and abs(date - passed) < 3, (up, date, passed)
            print(f"  ten switches in {passed:.1f} s: the guest's clock {up:.1f} s, {last[3] - before[3]:.0f} files, "
                  f"{last[4] - before[4]:.0f} sums, {last[5] - before[5]:.0f} messages, {last[6] - before[6]:.0f} objects")


def a_saved_machine_goes_on():
    counter = Counter()
    with tempfile.TemporaryDirectory(prefix="lodge-test-") as folder:
        state = pathlib.Path(folder) / "state"
        with Machine(work_spec(folder, counter, cpus=2)) as machine:
            progress(machine, 240)
            before, seen = progress(machine), time.monotonic()
            machine.lodge("save", machine.name, str(state), timeout=120)
            assert machine.wait_end(30) == 0, machine.errors
            ran = time.monotonic() - seen
            last = [[float(v) for v in m.groups()] for m in re.finditer(PROGRESS, machine.console.text, re.MULTILINE)][-1]
            nothing_broke(machine)
        print(f"  the file takes {os.stat(state).st_blocks // 2048} MiB of 192")
        time.sleep(5)
        for options in ((), ("--engine", "interpret")):
            begin = time.monotonic()
            with Restored(state, options) as machine:
                first = progress(machine)
                ran += time.monotonic() - begin
                # One line may have been cut in two by the save, and is then seen whole on neither side.
                assert last[0] <= first[0] <= last[0] + 2, (first, last)
                # The guest's time stood still while nobody ran it.
                assert first[1] - before[1] < ran + 1, (first, before, ran)
                # A sum by the interpreter takes longer than some lines where the host has other work.
                turns, limit = 0, time.monotonic() + 240
                while turns < 3 or after[3] <= last[3] or after[4] <= last[4]:
                    after, seen, turns = progress(machine), time.monotonic(), turns + 1
                    assert seen < limit, (after, last)
                before = after
                nothing_broke(machine)
                assert machine.console.text.count("LOST") <= 1
                packed = pathlib.Path(folder) / "packed"
                machine.lodge("save", machine.name, str(packed), "--compress", timeout=120)
                assert machine.wait_end(30) == 0
                ran = time.monotonic() - seen
                last = [[float(v) for v in m.groups()] for m in re.finditer(PROGRESS, machine.console.text, re.MULTILINE)][-1]
            print(f"  the compressed file takes {os.stat(packed).st_blocks // 2048} MiB")
            state = packed


# What a guest can know of the time of day: the real-time clock and the host's clock by a hypercall at once, its own when it
# sets that from one of them.
CLOCKS = """
insmod /lodge/ptp_kvm.ko || echo "BROKEN module"
while read -t 1 word || true; do
  [ "$word" = rtc ] && hwclock -s -u && echo "set by rtc"
  [ "$word" = ptp ] && date -u -s "@$(/lodge/clock_now /dev/ptp0)" >/dev/null && echo "set by ptp"
  word=
  echo "clocks up $(cut -d' ' -f1 /proc/uptime) rtc $(cat /sys/class/rtc/rtc0/since_epoch) ptp $(/lodge/clock_now /dev/ptp0) date $(date +%s) end"
  sleep 1
done
"""


def clocks(machine):
    match = machine.console.wait_for(r"^clocks up ([\d.]+) rtc (\d+) ptp (\d+) date (\d+) end$", 120)
    assert "BROKEN" not in machine.console.text, machine.console.tail()
    return [float(value) for value in match.groups()]


def a_restored_guest_can_know_the_time():
    """The clocks that tell the time of day are the host's at once, those that do not stand still while the machine does."""
    with tempfile.TemporaryDirectory(prefix="lodge-test-") as folder:
        folder = pathlib.Path(folder)
        program, state, first = folder / "clock_now", folder / "state", paths.INITRD.read_bytes()
        source = pathlib.Path(__file__).parent / "guest" / "clock_now.c"
        subprocess.run(["gcc", "-O2", "-static", "-s", "-o", program, source], check=True)
        with tarfile.open(paths.GUEST / "modules.tar") as tar:
            module = tar.extractfile(next(name for name in tar.getnames() if name.endswith("/ptp_kvm.ko"))).read()
        files = [("lodge/run", 0o755, CLOCKS.encode()), ("lodge/clock_now", 0o755, program.read_bytes()), ("lodge/ptp_kvm.ko", 0o644, module)]
        initrd = folder / "initrd"
        initrd.write_bytes(first + bytes(-len(first) % 4) + cpio_archive(files))
        with Machine(Spec(initrd=initrd, append="console=ttyS0 quiet", memory="128M", cpus=2)) as machine:
            seen = time.time()
            clocks(machine)
            up, rtc, ptp, date = clocks(machine)
            assert seen - 1 <= rtc <= time.time() + 1 and seen - 1 <= ptp <= time.time() + 1, (up, rtc, ptp, date, seen)
            last = time.monotonic()
            machine.lodge("save", machine.name, str(state), timeout=120)
            assert machine.wait_end(30) == 0, machine.errors
            ran = time.monotonic() - last
        time.sleep(8)
        for word in "rtc", "ptp":
            began, restored = time.monotonic(), time.time()
            with Restored(state) as machine:
                clocks(machine)
                # What was printed while the machine was saved may be seen twice: the next line is of after the restore.
                first = clocks(machine)
                for each in first[1:3]:
                    assert restored - 1 <= each <= time.time() + 1, (first, restored)
                assert 0 < first[0] - up < ran + time.monotonic() - began + 1, (first, up, ran)
                assert first[3] < restored, "its own clock went on from where it stood"
                machine.console.send(f"{word}\n")
                machine.console.wait_for(f"^set by {word}$", 60)
                assert restored - 1 <= clocks(machine)[3] <= time.time() + 1
                assert "lockup" not in machine.console.text and "stall" not in machine.console.text, machine.console.text


def lodge(*arguments, timeout=60):
    return subprocess.run([paths.LODGE, *map(str, arguments)], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                          timeout=timeout)


def a_pc_goes_on():
    """A machine with firmware, a screen and disks, saved twice: while its boot loader waits, and while it works."""
    counter = Counter()
    with tempfile.TemporaryDirectory(prefix="lodge-test-") as folder:
        folder = pathlib.Path(folder)
        spec = work_spec(folder, counter, cpus=2)
        script = WORK.replace("HOST", HOST).replace("PORT", str(counter.port)).replace("/dev/vda", "/dev/vdb")
        make_boot_disk(folder / "boot", initrd=with_script(folder, script, compiler_files()), config=MENU)
        spec.kernel, spec.disks = None, [Disk(folder / "boot"), *spec.disks]
        with Machine(spec) as machine:
            machine.console.wait_for("choose now", 120)
            machine.lodge("save", machine.name, str(folder / "menu"), timeout=120)
            assert machine.wait_end(30) == 0, machine.errors
        with Restored(folder / "menu") as machine:
            machine.console.send("\n")
            progress(machine, 240)
            progress(machine)
            machine.lodge("save", machine.name, str(folder / "busy"), timeout=120)
            assert machine.wait_end(30) == 0, machine.errors
            last = [[float(v) for v in m.groups()] for m in re.finditer(PROGRESS, machine.console.text, re.MULTILINE)][-1]
            nothing_broke(machine)
        with Restored(folder / "busy") as machine:
            first = progress(machine)
            # One line may have been cut in two by the save, and is then seen whole on neither side.
            assert last[0] <= first[0] <= last[0] + 2, (first, last)
            picture = folder / "screen.png"
            machine.lodge("screenshot", machine.name, str(picture))
            assert picture.stat().st_size > 100
            for _ in range(3):
                after = progress(machine)
            nothing_broke(machine)
            assert after[3] > last[3] and after[4] > last[4], (after, last)


def debian_spec(folder, **options):
    overlay = pathlib.Path(folder) / "debian.qcow2"
    subprocess.run([paths.LODGE, "image", "create", "-q", "-f", "qcow2", "-b", paths.DEBIAN, "-F", "raw", overlay], check=True,
                   stdout=subprocess.DEVNULL)
    return dict(image=f"{overlay},allow-path={paths.GUEST}", snapshot=False, memory="512M", **options)


def debian_goes_on():
    with tempfile.TemporaryDirectory(prefix="lodge-test-") as folder:
        state = pathlib.Path(folder) / "state"
        with Debian(**debian_spec(folder)) as debian:
            debian.check("echo kept >/root/kept; sync", 60)
            debian.machine.console.send("x=$((6 * 7))\n")
            debian.check("true", 60)
            debian.machine.lodge("save", debian.machine.name, str(state), timeout=200)
            assert debian.machine.wait_end(30) == 0, debian.machine.errors
        for turn in range(3):
            with Restored(state) as machine:
                machine.console.send("echo answer-$x $(cat /root/kept)\n")
                machine.console.wait_for("^answer-42 kept", 60)
                if turn == 2:
                    machine.console.send("systemctl is-system-running; poweroff\n")
                    assert machine.wait_end(120) == 0
                else:
                    machine.lodge("save", machine.name, str(state), timeout=200)
                    assert machine.wait_end(30) == 0, machine.errors


# Every round each disk is written and read past the guest's memory, and the CD-ROM is read.
DISK_WORK = """
for n in 1 2 3 4 5 6 7 8 9 10; do test -e /dev/LAST -a -e /dev/sr0 && break; sleep 1; done
mknod /tmp/fd b 2 0
n=0
while true; do
  n=$((n + 1))
  dd if=/dev/urandom of=/tmp/data bs=64k count=4 2>/dev/null
  for disk in DISKS; do
    dd if=/tmp/data of=$disk bs=64k seek=$((n % 4 * 4)) oflag=direct conv=notrunc 2>/dev/null || echo "BROKEN write $disk"
    dd if=$disk of=/tmp/back bs=64k skip=$((n % 4 * 4)) count=4 iflag=direct 2>/dev/null || echo "BROKEN read $disk"
    cmp -s /tmp/data /tmp/back || echo "BROKEN data $disk"
  done
  echo 3 >/proc/sys/vm/drop_caches
  echo "round $n $(dd if=/dev/sr0 bs=2048 2>/dev/null | sha256sum)"
done
"""
SCSI = ["scsi_common", "scsi_mod", "sd_mod", "cdrom", "sr_mod", "virtio_scsi"]
# That kernel's sd_mod wants a module that is not in the archive: the disk on AHCI is there, and found, and not written.
AHCI = ["scsi_common", "scsi_mod", "cdrom", "sr_mod", "libata", "libahci", "ahci", "floppy"]


def round_of(machine, digest, seconds=120):
    number = int(machine.console.wait_for(rf"^round (\d+) {digest}", seconds).group(1))
    nothing_broke(machine)
    return number


def goes_on_with(folder, options, disks, modules, kernel, last_found, change=None):
    """A pc machine is saved and restored twice while it uses these disks; `change` puts another medium into cd0."""
    initrd_with(folder / "initrd", modules, DISK_WORK.replace("DISKS", " ".join(disks)).replace("LAST", last_found),
                full=kernel == paths.VMLINUZ_FULL)
    make_boot_disk(folder / "boot.img", initrd=folder / "initrd", kernel=kernel)
    medium, state = folder / "cd0", folder / "state"
    digest = lambda: hashlib.sha256(medium.read_bytes()).hexdigest()
    spec = Spec(kernel=None, disks=[Disk(folder / "boot.img", ide=True)], memory="256M", cpus=2, options=("--boot", "c", *options))
    with Machine(spec) as machine:
        last = round_of(machine, digest(), 240)
        if change:
            machine.lodge("insert", machine.name, "cd0", str(change))
            medium = change
            last = round_of(machine, digest())
        machine.lodge("save", machine.name, str(state), timeout=200)
        assert machine.wait_end(30) == 0, machine.errors
    for _ in range(2):
        with Restored(state) as machine:
            first = round_of(machine, digest(), 240)
            assert first > last, (first, last)
            last = round_of(machine, digest())
            machine.lodge("save", machine.name, str(state), timeout=200)
            assert machine.wait_end(30) == 0, machine.errors


def a_pc_with_all_kinds_of_disks_goes_on():
    with tempfile.TemporaryDirectory(prefix="lodge-test-") as name:
        folder = pathlib.Path(name)
        for disk in "nvme", "scsi", "ahci":
            (folder / disk).write_bytes(bytes(4 << 20))
        (folder / "floppy").write_bytes(bytes(1440 << 10))
        for number in range(2):
            (folder / f"cd{number}").write_bytes(os.urandom(1 << 20))
        goes_on_with(folder, ("--disk", f"{folder}/nvme,bus=nvme", "--disk", f"{folder}/scsi,bus=scsi", "--cdrom",
                              f"{folder}/cd0,bus=scsi"), ["/dev/sda", "/dev/nvme0n1"], SCSI, paths.VMLINUZ, "sda", folder / "cd1")
        goes_on_with(folder, ("--disk", f"{folder}/ahci,bus=ahci", "--cdrom", f"{folder}/cd0,bus=ahci", "--floppy",
                              f"{folder}/floppy"), ["/tmp/fd"], AHCI, paths.VMLINUZ_FULL, "sr0")


def a_screen_and_a_pointer_go_on():
    """A GPU that has drawn, and a USB tablet that waits for the pointer, in a machine that is saved twice."""
    with tempfile.TemporaryDirectory(prefix="lodge-test-") as folder:
        folder = pathlib.Path(folder)
        state = folder / "state"
        initrd_with(folder / "initrd", [*GPU, *USB], DRAW.replace("sleep 600", "") + POINTER, full=True)
        make_boot_disk(folder / "disk.img", initrd=folder / "initrd", kernel=paths.VMLINUZ_FULL)
        options = ("--vga", "virtio", "--pointer", "usb")
        with Machine(Spec(kernel=None, disks=[Disk(folder / "disk.img", ide=True)], options=options)) as machine:
            machine.console.wait_for("pointer: ready", 240)
            picture_is_right(machine, folder / "shot.png")
            machine.lodge("save", machine.name, str(state), timeout=200)
            assert machine.wait_end(30) == 0, machine.errors
        for turn in range(2):
            with Restored(state, ("--vnc", f"unix:{folder}/vnc{turn}")) as machine:
                end = time.monotonic() + 30
                while machine.name not in machine.lodge("ps") and time.monotonic() < end:
                    assert machine.process.poll() is None, machine.errors
                    time.sleep(0.05)
                picture_is_right(machine, folder / "shot.png")
                client = Rfb(folder / f"vnc{turn}", (RAW,))
                x = 300 + 100 * turn
                client.socket.sendall(struct.pack(">BBHH", 5, 0, x, 10))
                machine.console.wait_for(rf"^(\s*-?\d+){{8}}\s+3\s+0\s+{x * 32767 // (client.width - 1)}\s+0\r?$", 60)
                machine.lodge("save", machine.name, str(state), timeout=200)
                assert machine.wait_end(30) == 0, machine.errors


def a_shell_answers_soon():
    """Figures, not bounds: from the start of `lodge restore` to the machine running and to a shell's answer."""
    with tempfile.TemporaryDirectory(prefix="lodge-test-") as folder:
        state = pathlib.Path(folder) / "state"
        with Debian(**debian_spec(folder), cpus=1) as debian:
            debian.check("sleep 20; sync", 60)
            debian.machine.lodge("save", debian.machine.name, str(state), timeout=200)
            assert debian.machine.wait_end(30) == 0, debian.machine.errors
        for _ in range(5):
            start = time.monotonic()
            with Restored(state, ("--verbose",)) as machine:
                machine.console.send("echo soon-$((5 * 5))\n")
                while "the machine runs" not in machine.errors:
                    time.sleep(0.0005)
                runs = time.monotonic() - start
                machine.console.wait_for("^soon-25", 60)
                print(f"  runs after {1000 * runs:.1f} ms, answers after {1000 * (time.monotonic() - start):.1f} ms")


def main_of(name):
    tests = {"engines": [a_busy_machine_moves_between_engines],
             "restore": [a_saved_machine_goes_on, a_restored_guest_can_know_the_time],
             "debian": [debian_goes_on],
             "pc": [a_pc_goes_on],
             "drives": [a_pc_with_all_kinds_of_disks_goes_on],
             "screen": [a_screen_and_a_pointer_go_on],
             "speed": [a_shell_answers_soon]}
    main(*tests[name])


if __name__ == "__main__":
    main_of(sys.argv[1])
