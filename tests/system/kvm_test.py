# SPDX-License-Identifier: Apache-2.0
"""The kvm engine on a KVM that works: this host's own, or one level down (kit/nested.py):
kvm_test.py units | busybox CPUS | moves CPUS ROUNDS | saved CPUS | debian CPUS | firmware | secure_boot | requests | refusal, then user, split or
kernel for --irqchip, if not the default."""

import pathlib
import re
import subprocess
import sys
import tempfile

from kit import cpu_check, paths
from kit.archive import cpio_archive
from kit.boot_disk import make_boot_disk
from kit.busy_guest import PROGRESS, WORK, compiler_files
from kit.case import Skip, main
from kit.guest import Debian, run_busybox
from kit.machine import Disk, Machine, Spec
from kit.nested import FirstLevel, have_kvm_here, kernel_modules

SECONDS = 800
# QEMU 7.2's TCG does not come back from a triple fault of a guest's guest in real mode.
NOT_NESTED = "*TripleFault*"
IRQCHIP = next((f" --irqchip {word}" for word in sys.argv[2:] if word in ("user", "split", "kernel")), "")
# Each CPU counts that far: one level down a guest is slow.
TURNS = 300


def units():
    """The engine's unit tests, of which none may be skipped here."""
    program = paths.BUILD / "src/engine/kvm/kvm_test"
    if have_kvm_here():
        done = subprocess.run([program], capture_output=True, text=True, timeout=SECONDS)
        status, output = done.returncode, done.stdout
    else:
        with FirstLevel(f"/lodge/kvm_test --gtest_color=no --gtest_filter=-{NOT_NESTED}", programs=[(program, "kvm_test")]) as guest:
            status, output = guest.result(SECONDS)
    assert status == 0 and "SKIPPED" not in output, output[-4000:]
    assert re.search(r"PASSED.* \d+ tests", output), output[-1000:]


# Those that have to do with what a machine is made of. The translator's, images' and networks' have not.
UNITS = ("device", "virtio", "machine", "storage", "usb", "display", "memory", "state", "engine", "firmware", "x86", "x86_model", "interpret")
RUN_UNITS = """
cd /tmp
for test in UNITS; do
  if /lodge/${test}_test --gtest_color=no --gtest_brief=1 >/tmp/out 2>&1; then
    echo "unit $test: $(grep -c '^.  SKIPPED' /tmp/out) skipped"
  else
    echo "BROKEN $test"; grep FAILED /tmp/out; tail -n 20 /tmp/out
  fi
done
"""


def device_units():
    """The unit tests of devices and of what machines are made of pass where KVM works, too."""
    if have_kvm_here():
        raise Skip("this host's own KVM works: make test runs them on it")
    with tempfile.TemporaryDirectory(prefix="lodge-test-") as folder:
        programs = []
        for name in UNITS:
            program, = (paths.BUILD / "src").rglob(f"{name}_test")
            subprocess.run(["strip", "-o", f"{folder}/{name}", program], check=True)
            programs.append((f"{folder}/{name}", f"{name}_test"))
        with FirstLevel(RUN_UNITS.replace("UNITS", " ".join(UNITS)), programs=programs, cpus=2, memory="4G") as guest:
            status, output = guest.result(SECONDS)
    assert status == 0 and "BROKEN" not in output, output[-4000:]
    done = re.findall(r"^unit (\w+): (\d+) skipped$", output, re.MULTILINE)
    assert [name for name, _ in done] == list(UNITS), output[-4000:]
    print("  skipped: " + ", ".join(f"{name} {count}" for name, count in done))


def busybox_in_nested(cpus):
    first = paths.INITRD.read_bytes()
    initrd = first + bytes(-len(first) % 4) + cpio_archive([("lodge/run", 0o755, cpu_check.script(TURNS).encode())])
    run = (f"lodge run --engine kvm{IRQCHIP} --kernel /lodge/vmlinuz --initrd /lodge/initrd2 --memory 256M --cpus {cpus} "
           "--append 'console=ttyS0 quiet' --stats </dev/null 2>&1")
    with FirstLevel(run, files=[("initrd2", initrd)], cpus=cpus) as guest:
        status, output = guest.result(SECONDS)
    assert status == 0, output[-4000:]
    print("  " + "\n  ".join(re.findall(r"^vcpu\d\.(?:exits|kvm\.exits|kvm\..*_exits).*$", output, re.MULTILINE)))
    begin = output.index("lodge-guest: ready\n") + len("lodge-guest: ready\n")
    end = re.search(r"^lodge-guest: exit status (\d+)$", output, re.MULTILINE)
    assert end, output[-4000:]
    return int(end.group(1)), output[begin:end.start()].strip("\n")


def busybox():
    cpus = int(sys.argv[2])
    if have_kvm_here():
        status, output = run_busybox(cpu_check.script(TURNS), SECONDS, cpus=cpus, engine="kvm", options=IRQCHIP.split())
    else:
        status, output = busybox_in_nested(cpus)
    cpu_check.check(status, output, cpus, TURNS)
    assert "kvm-clock" in output.splitlines(), output


# In the first level: the guest of kit/busy_guest.py goes from engine to engine, and says how far it is before and after.
# Emulated twice, the interpreter does a million instructions a second and the translator a hundred translations: there the
# guest has some time, and back on KVM it must say that it goes on.
SERVE = """#!/bin/sh
while read word number; do echo $number; done
"""
MOVES = """
nc -l -p 5555 -e /lodge/serve &
lodge run --engine kvmIRQCHIP --name m --kernel /lodge/vmlinuz --initrd /lodge/busy --memory 128M --cpus CPUS --net user \\
  --append 'console=ttyS0 quiet' --disk /dev/vda </dev/null >/tmp/console 2>/tmp/errors &
lines() { grep -c '^at ' /tmp/console; }
further() {
  now=$(lines); tries=0
  while [ $(lines) -lt $((now + $1)) ]; do
    sleep 0.1; tries=$((tries + 1))
    [ $tries -lt 900 ] || { echo "STUCK on $engine"; tail -n 20 /tmp/console /tmp/errors; lodge stats m; exit 1; }
  done
}
# Whether each kind of work has gone on since `begin`.
advanced() {
  awk -v begin="$begin" '/^at /{now = $0} END{split(begin, x, " "); split(now, y, " "); for (i = 8; i <= 11; ++i) if (!(y[i] > x[i])) exit 1}' /tmp/console
}
mark() { echo "$1 host $(cut -d' ' -f1 /proc/uptime) $(grep '^at ' /tmp/console | tail -n 1)"; }
engine=kvm
further 3
mark begin
begin=$(grep '^at ' /tmp/console | tail -n 1)
round=0
while [ $round -lt ROUNDS ]; do
  round=$((round + 1))
  for engine in translate interpret; do
    lodge engine m $engine >/tmp/said || { cat /tmp/said; exit 2; }
    sleep 1.5
    lodge stats m | grep -E '^vcpu0.(translations|instructions) '
  done
  engine=kvm
  lodge engine m $engine >/tmp/said || { cat /tmp/said; exit 2; }
  further 1
done
further 2
more=0
until advanced || [ $more -ge 60 ]; do further 1; more=$((more + 1)); done
mark end
lodge stats m | grep -E 'exits|runs|doorbells'
grep -E 'BROKEN|LOST' /tmp/console
grep 'goes on' /tmp/errors | tail -n 3
lodge kill m
"""


def run_busy(script, seconds):
    """(status, output) of a script of the first level, which finds the busy guest as /lodge/busy and its disk as /dev/vda."""
    with tempfile.TemporaryDirectory(prefix="lodge-test-") as folder:
        disk = pathlib.Path(folder) / "disk"
        with open(disk, "wb") as file:
            file.truncate(64 << 20)
        subprocess.run(["/sbin/mke2fs", "-q", "-t", "ext4", disk], check=True, stdin=subprocess.DEVNULL)
        first = paths.INITRD.read_bytes()
        work = WORK.replace("HOST", "10.0.2.2").replace("PORT", "5555")
        busy = first + bytes(-len(first) % 4) + cpio_archive([("lodge/run", 0o755, work.encode()), *compiler_files()])
        # One processor in the first level: what the translator asks of others there takes milliseconds each time.
        with FirstLevel(script.replace("IRQCHIP", IRQCHIP), files=[("busy", busy), ("serve", SERVE.encode())], disks=[disk]) as guest:
            return guest.result(seconds)


def moves():
    """A busy machine goes kvm, translate, interpret, kvm and so on, and nothing is lost."""
    cpus, rounds = sys.argv[2], int(sys.argv[3])
    if have_kvm_here():
        raise Skip("system.state.engines does this on the engine of this host")
    status, output = run_busy(MOVES.replace("CPUS", cpus).replace("ROUNDS", str(rounds)), SECONDS)
    assert status == 0 and "STUCK" not in output, output[-4000:]
    assert "BROKEN" not in output and "LOST" not in output, output[-4000:]
    seen = {}
    for name in ("begin", "end"):
        host, progress = re.search(rf"^{name} host ([\d.]+) (at .*)$", output, re.MULTILINE).groups()
        seen[name] = [float(host), *map(float, re.match(PROGRESS, progress + "\n").groups())]
    host, _, up, date, *done = (after - before for before, after in zip(seen["begin"], seen["end"]))
    assert abs(up - host) < 5 and abs(date - host) < 5, seen  # a line is some time on its way
    assert all(each > 0 for each in done), seen
    rings = re.search(r"^doorbells\.rings +(\d+)$", output, re.MULTILINE)
    assert rings and int(rings.group(1)) > 0, "disk and card were never notified by events"
    slow = re.findall(r"^vcpu0\.(translations|instructions) +(\d+)$", output, re.MULTILINE)
    assert len(slow) == 2 * rounds and all(int(count) > 0 for _, count in slow), slow
    print(f"  {3 * rounds} moves in {host:.1f} s: the guest's clock {up:.1f} s, {done[0]:.0f} files, {done[1]:.0f} sums, {done[2]:.0f} messages, "
          f"{done[3]:.0f} objects")


# Resets from the x2APIC mode that Linux leaves behind; then a busy machine that goes on from a file, in another process.
SAVED = """
lodge run --engine kvmIRQCHIP --name r --kernel /lodge/vmlinuz --initrd /lodge/initrd --memory 128M --cpus CPUS \\
  --append 'console=ttyS0 quiet lodge.run="echo reset" lodge.end=reboot' </dev/null >/tmp/resets 2>&1 &
tries=0
until [ $(grep -c '^reset' /tmp/resets) -ge 2 ]; do
  sleep 0.5; tries=$((tries + 1))
  [ $tries -lt 400 ] || { cat /tmp/resets; exit 1; }
done
lodge kill r
nc -l -p 5555 -e /lodge/serve &
lodge run --engine kvmIRQCHIP --name m --kernel /lodge/vmlinuz --initrd /lodge/busy --memory 128M --cpus CPUS --net user \\
  --append 'console=ttyS0 quiet' --disk /dev/vda </dev/null >/tmp/console 2>/tmp/errors &
reach() {
  tries=0
  until [ $(grep -c '^at ' $1) -ge 3 ]; do
    sleep 0.2; tries=$((tries + 1))
    [ $tries -lt 600 ] || { tail -n 20 $1 /tmp/errors; exit 2; }
  done
}
sleep 1
reach /tmp/console
lodge save m /tmp/state 2>/dev/null || exit 3
grep '^at ' /tmp/console | tail -n 1
lodge restore /tmp/state --engine kvmIRQCHIP --name m </dev/null >/tmp/restored 2>/tmp/errors &
sleep 1
reach /tmp/restored
grep '^at ' /tmp/restored
grep BROKEN /tmp/console /tmp/restored
lodge kill m
"""


def saved():
    """A machine on KVM is reset, saved and goes on on KVM."""
    if have_kvm_here():
        raise Skip("system.state does this on the engine of this host")
    status, output = run_busy(SAVED.replace("CPUS", sys.argv[2]), SECONDS)
    assert status == 0 and "BROKEN" not in output, output[-4000:]
    seen = [list(map(float, match.groups())) for match in re.finditer(PROGRESS, output, re.MULTILINE)]
    before, last = seen[0], seen[-1]
    assert len(seen) == 4 and seen[1][0] == before[0] + 1, seen
    assert last[3] > before[3] and last[4] > before[4], seen


class NestedDebian(Debian):
    """Debian on a machine of the first level, whose console is the first level's."""

    def __init__(self, first_level):
        self.machine = first_level
        self._count = 0


def use(debian, cpus):
    """Processors, disk, network and balloon at work."""
    assert debian.check("nproc", 120) == str(cpus)
    debian.check("dd if=/dev/urandom of=/root/data bs=1M count=16 2>/dev/null && sync && sha256sum /root/data >/root/sum && "
                 "echo 3 >/proc/sys/vm/drop_caches && sha256sum -c /root/sum", 300)
    assert "10.0.2.15" in debian.check("ip -4 addr", 120)
    debian.check("ping -c 2 -W 20 10.0.2.2", 120)
    assert "balloon" in debian.check("cat /sys/bus/virtio/drivers/*/module/holders /dev/null; ls /sys/bus/virtio/drivers", 60)
    assert debian.run("dmesg | grep -E 'BUG:|Oops|lockup|unchecked MSR|general protection'", 60)[0] == 1


def debian():
    cpus = int(sys.argv[2])
    if have_kvm_here():
        with Debian(cpus=cpus, engine="kvm", options=IRQCHIP.split()) as machine:
            use(machine, cpus)
            assert machine.power_off() == 0
        return
    run = (f"setsid cttyhack lodge run --engine kvm{IRQCHIP} --kernel /lodge/vmlinuz --initrd /lodge/initrd --memory 768M --cpus {cpus} --net user "
           "--append 'console=ttyS0 quiet root=/dev/vda rw systemd.default_timeout_start_sec=1200' --disk /dev/vda --snapshot --stats")
    # A processor more for what is not a vCPU: systemd gives devices 90 seconds.
    with FirstLevel(run, disks=[paths.DEBIAN], cpus=2) as guest:
        machine = NestedDebian(guest)
        machine.login(1200)
        use(machine, cpus)
        guest.console.send("poweroff\n")
        status, output = guest.result(600)
    assert status == 0, output[-3000:]
    print("  " + "\n  ".join(re.findall(r"^vcpu\d\.(?:exits|kvm\.exits|kvm\..*_exits).*$", output, re.MULTILINE)))


def firmware():
    """SeaBIOS and GRUB in real mode, ROM, shadowed RAM and the screen; then the kernel."""
    with tempfile.TemporaryDirectory(prefix="lodge-test-") as folder:
        folder = pathlib.Path(folder)
        initrd = folder / "initrd"
        first = paths.INITRD.read_bytes()
        initrd.write_bytes(first + bytes(-len(first) % 4) + cpio_archive([("lodge/run", 0o755, b"echo from the disk\n")]))
        disk = folder / "disk"
        make_boot_disk(disk, initrd=initrd)
        if have_kvm_here():
            with Machine(Spec(kernel=None, disks=[Disk(disk)], engine="kvm", options=("--vnc", ":91", *IRQCHIP.split()))) as machine:
                machine.console.wait_for("^from the disk$", SECONDS)
                assert machine.wait_end(60) == 0
            return
        roms = [(f"/usr/share/seabios/{name}", pathlib.Path(f"/usr/share/seabios/{name}").read_bytes())
                for name in ("bios-256k.bin", "vgabios-stdvga.bin")]
        run = f"""setsid cttyhack lodge run --engine kvm{IRQCHIP} --name m --memory 256M --disk /dev/vda --stats &
        sleep 8
        lodge screenshot m /tmp/picture.png && echo picture $(wc -c </tmp/picture.png) bytes
        wait $!"""
        with FirstLevel(run, files=roms, disks=[disk]) as guest:
            status, output = guest.result(SECONDS)
        assert status == 0 and "\nfrom the disk\n" in output, output[-4000:]
        assert "picture" in output, output[-4000:]


def secure_boot():
    """OVMF, whose variables are behind system management mode, starts nothing that is not signed."""
    if have_kvm_here():
        raise Skip("system.uefi does this on the engine of this host")
    files = []
    for name in ("OVMF_CODE_4M.secboot.fd", "OVMF_VARS_4M.ms.fd"):
        path = pathlib.Path("/usr/share/OVMF") / name
        if not path.exists():
            raise Skip(f"the host has no {path}")
        files.append((str(path), path.read_bytes()))
    # QEMU 7.2's TCG aborts where the guest's guest writes CR8 while an interrupt waits that the first level gave it by the
    # processor (it raises a virtual interrupt without its lock), as OVMF does where local APICs are KVM's.
    run = "truncate -s 64M /tmp/d; lodge run --engine kvm --irqchip user --memory 256M --disk /tmp/d --secure-boot --snapshot </dev/null"
    with FirstLevel(run, files=files) as guest:
        guest.console.wait_for("Security Violation", SECONDS)


# Huge pages are set aside in the first level; the nested machine is a host itself as far as its kernel's module goes.
REQUESTS = """
run() { lodge run --engine kvmIRQCHIP --kernel /lodge/vmlinuz --memory 128M --append 'console=ttyS0 quiet' --net none "$@" </dev/null; }
run --initrd /lodge/said --hugepages >/tmp/few 2>&1 && exit 10
grep -E -e '--hugepages: the machine needs 64 huge pages of 2M' /tmp/few || { cat /tmp/few; exit 11; }
echo 80 >/proc/sys/vm/nr_hugepages
run --initrd /lodge/said --hugepages --name h >/tmp/huge 2>&1 &
reach() {
  tries=0
  until grep -q "^$1" $2; do
    sleep 0.2; tries=$((tries + 1))
    [ $tries -lt 900 ] || { tail -n 20 $2; exit 12; }
  done
}
reach 'guest: ready' /tmp/huge
echo "reserved $(grep -E 'HugePages_(Free|Rsvd)' /proc/meminfo | tr -s ' \n' ' ')"
lodge save h /tmp/state --keep-running 2>&1 && echo "saved $(wc -c </tmp/state)"
lodge engine h translate 2>&1
lodge kill h; wait
echo 0 >/proc/sys/vm/nr_hugepages
run --initrd /lodge/said --nested --name n >/tmp/nested 2>&1 &
reach 'guest: ready' /tmp/nested
grep '^guest:' /tmp/nested
lodge engine n translate 2>&1
lodge engine n kvm 2>&1
last=$(grep -c '^tick.* end' /tmp/nested); reach "tick $((last + 2)) .* end" /tmp/nested && echo "n goes on"
lodge kill n; wait
run --initrd /lodge/host --nested --name p >/tmp/host 2>&1 &
reach 'sum 3 done' /tmp/host
lodge engine p translate 2>&1
lodge save p /tmp/state2 2>/dev/null || exit 13
wait
echo "host $(grep '^sum.* done' /tmp/host | tail -n 1)"
lodge restore /tmp/state2 --engine translate --name p 2>&1 </dev/null && exit 14
lodge restore /tmp/state2 --engine kvm --name p </dev/null >/tmp/host2 2>&1 &
reach 'sum .* done' /tmp/host2
further=$(grep '^sum.* done' /tmp/host2 | head -n 1 | cut -d' ' -f2)
reach "sum $((further + 3)) done" /tmp/host2
echo "host2 $(grep '^sum.* done' /tmp/host2 | head -n 1)"
grep BROKEN /tmp/host /tmp/host2
lodge kill p; wait
run --initrd /lodge/said HYPERV --name v >/tmp/hyperv 2>&1 &
reach 'tick 2 .* end' /tmp/hyperv
grep '^guest:' /tmp/hyperv
lodge engine v translate 2>&1
lodge save v /tmp/state3 2>/dev/null || exit 15
wait
echo "hyperv $(grep '^tick.* end' /tmp/hyperv | tail -n 1)"
lodge restore /tmp/state3 --engine translate --name v 2>&1 </dev/null && exit 16
lodge restore /tmp/state3 --engine kvm --name v </dev/null >/tmp/hyperv2 2>&1 &
reach 'tick .* end' /tmp/hyperv2
further=$(grep '^tick.* end' /tmp/hyperv2 | head -n 1 | cut -d' ' -f2)
reach "tick $((further + 3)) .* end" /tmp/hyperv2
echo "hyperv2 $(grep '^tick.* end' /tmp/hyperv2 | head -n 1)"
lodge kill v; wait
"""
SAYS = """
for module in $(cat /lodge/modules/order); do insmod /lodge/modules/$module 2>/dev/null; done
echo "guest: svm $(grep -cw svm /proc/cpuinfo) device $([ -c /dev/kvm ] && echo yes)"
echo "guest: ready"
n=0
while true; do n=$((n + 1)); echo "tick $n up $(cut -d' ' -f1 /proc/uptime) end"; sleep 1; done
"""
HOST = """
for module in $(cat /lodge/modules/order); do insmod /lodge/modules/$module 2>/dev/null; done
/lodge/guests_guest
"""


def requests():
    """--hugepages, --nested and --hyperv: what the guest gets, what goes on after a save, and what is refused by name."""
    if have_kvm_here():
        raise Skip("what it changes is the first level's")
    first = paths.INITRD.read_bytes()
    first += bytes(-len(first) % 4)
    said = first + cpio_archive([("lodge/run", 0o755, SAYS.encode()), *kernel_modules()])
    with tempfile.TemporaryDirectory(prefix="lodge-test-") as folder:
        program = pathlib.Path(folder) / "guests_guest"
        source = pathlib.Path(__file__).parent / "guest" / "guests_guest.c"
        subprocess.run(["gcc", "-O2", "-static", "-s", "-o", program, source], check=True)
        files = [("lodge/run", 0o755, HOST.encode()), ("lodge/guests_guest", 0o755, program.read_bytes()), *kernel_modules()]
    # With another irqchip than the default one both interfaces at once.
    script = REQUESTS.replace("IRQCHIP", IRQCHIP).replace("HYPERV", "--nested --hyperv" if IRQCHIP else "--hyperv")
    with FirstLevel(script, files=[("said", said), ("host", first + cpio_archive(files))]) as guest:
        status, output = guest.result(2 * SECONDS)
    assert status == 0 and "BROKEN" not in output, output[-4000:]
    free, reserved = map(int, re.search(r"reserved HugePages_Free: (\d+) HugePages_Rsvd: (\d+)", output).groups())
    assert free - reserved == 80 - 64 and free < 80, output[-4000:]
    assert re.search(r"^saved [1-9]\d{6,}$", output, re.MULTILINE), output[-4000:]
    assert "--hugepages: engine translate cannot do that" in output, output[-4000:]
    assert re.findall(r"^guest: svm .*$", output, re.MULTILINE) == ["guest: svm 1 device yes", f"guest: svm {'1 device yes' if IRQCHIP else '0 device '}"], output[-4000:]
    assert "n runs on translate\nn runs on kvm\nn goes on" in output, output[-4000:]
    # Refused while the guest is a host: to move, and to go on elsewhere.
    assert "the guest uses SVM (EFER.SVME), which engine translate does not have" in output, output[-4000:]
    assert "the guest uses SVM (EFER.SVME), which this engine does not have" in output, output[-4000:]
    assert output.count("--hyperv: engine translate cannot do that") == 2, output[-4000:]
    for name in ("host", "hyperv"):
        before, after = (re.search(rf"^{each} \w+ (\d+) (?:done|up ([\d.]+) end)$", output, re.MULTILINE).groups() for each in (name, f"{name}2"))
        # The line during which it was saved may be seen on neither side.
        assert int(before[0]) < int(after[0]) <= int(before[0]) + 2, (before, after)
        assert name == "host" or 0 < float(after[1]) - float(before[1]) < 60, (before, after)


def refusal():
    """Where KVM does not work, asking for it is an error that says why, soon."""
    if have_kvm_here():
        raise Skip("this host's KVM works")
    done = subprocess.run([paths.LODGE, "run", "--engine", "kvm", "--kernel", paths.VMLINUZ], capture_output=True, text=True,
                          stdin=subprocess.DEVNULL, timeout=60)
    assert done.returncode != 0
    assert re.search(r"--engine kvm: (the probe guest|there is no /dev/kvm|/dev/kvm )", done.stderr), done.stderr
    assert "--engine translate" in done.stderr, done.stderr


TESTS = (units, device_units, busybox, moves, saved, debian, firmware, secure_boot, requests, refusal)
main({test.__name__: test for test in TESTS}[sys.argv[1]])
