# SPDX-License-Identifier: Apache-2.0
"""PCI Express root ports of the Q35: SeaBIOS and OVMF number the buses behind them, set their windows and start from
what is there; Linux drives it."""

import pathlib
import subprocess
import tempfile

from kit import paths
from kit.boot_disk import initrd_with, make_boot_disk, make_efi_disk, need
from kit.boot_sector import make_sector_disk
from kit.case import main
from kit.machine import Disk, Machine, Spec

SECONDS = 300
OVMF = pathlib.Path("/usr/share/OVMF/OVMF_CODE_4M.fd")
# A line for each function: address, class, driver, bytes of configuration space, and whether its link says that it is up.
FUNCTIONS = """
for function in /sys/bus/pci/devices/*; do
  echo "pci $(basename $function) $(cat $function/class) $(basename $(readlink $function/driver) 2>/dev/null)" \\
    "config=$(wc -c <$function/config) port=$(basename $(readlink -f $function/..)) $(cat $function/current_link_speed 2>/dev/null)"
done
"""


def functions(text):
    """{address: (class, the rest of the line)} of what FUNCTIONS wrote."""
    found = {}
    for line in text.splitlines():
        words = line.split()
        if len(words) > 3 and words[0] == "pci":
            found[words[1]] = (words[2], " ".join(words[3:]))
    return found


def checks(machine, *commands):
    for command in commands:
        machine.console.check(command, 120)


def firmware_starts_from_behind_ports():
    """SeaBIOS: each kind of disk in turn, behind a port; the other ports have other devices, or none."""
    with tempfile.TemporaryDirectory(prefix="lodge-test-") as folder:
        folder = pathlib.Path(folder)
        for bus, name in (("virtio", "disk0"), ("nvme", "nvme0"), ("ahci", "ahci0"), ("scsi", "scsi")):
            make_sector_disk(folder / bus, f"started from {bus}")
            with Machine(Spec(kernel=None, options=("--disk", f"{folder / bus},bus={bus}", "--board", "q35", "--pcie-port", "none",
                                                    "--pcie-port", name, "--pcie-port", "rng"))) as machine:
                machine.console.wait_for(f"started from {bus}", SECONDS)


def linux_finds_all():
    """OVMF, GRUB, Linux: every device behind a port of its own, and all of them work."""
    need(OVMF)
    with tempfile.TemporaryDirectory(prefix="lodge-test-") as folder:
        folder = pathlib.Path(folder)
        initrd_with(folder / "initrd", ["virtio_scsi", "sd_mod"], FUNCTIONS + "exec sh </dev/console >/dev/console 2>&1")
        make_efi_disk(folder / "disk.img", shim=False, initrd=folder / "initrd")
        for name in ("nvme", "scsi"):
            (folder / name).write_bytes(name.encode() * (1 << 18))
        options = ("--board", "q35", "--firmware", "uefi", "--disk", f"{folder}/nvme,bus=nvme", "--disk", f"{folder}/scsi,bus=scsi",
                   "--pcie-port", "all")
        with Machine(Spec(kernel=None, cpus=2, net="user", disks=[Disk(folder / "disk.img")], options=options)) as machine:
            machine.console.wait_for("grub: starting", SECONDS)
            machine.console.wait_for("pci 0000:00:1f.0", SECONDS)
            machine.console.wait_for("# ", 60)
            machine.console.send("stty -echo; PS1=\n")
            checks(machine, "test $(head -c 8 /dev/nvme0n1) = nvmenvme", "test $(head -c 8 /dev/sda) = scsiscsi",
                   "dd if=/dev/zero of=/dev/nvme0n1 bs=64k count=1 seek=4 conv=fsync",
                   "ip link set eth0 up && udhcpc -n -q -i eth0", "grep -q 'nvme0q1' /proc/interrupts",
                   "grep -q 'PCI-MSI.*virtio.*-req' /proc/interrupts", "test -e /sys/class/misc/hw_random",
                   "test $(od -An -tx2 -j0 -N2 /sys/bus/pci/devices/0000:01:00.0/config) = 1af4")
            found = functions(machine.console.text)
        ports = {address: rest for address, (kind, rest) in found.items() if kind == "0x060400"}
        behind = {address: (kind, rest) for address, (kind, rest) in found.items() if not address.startswith("0000:00:")}
        assert len(ports) == len(behind) >= 7, found
        for address, rest in ports.items():
            assert "pcieport" in rest and "config=4096" in rest and "8.0 GT/s" in rest, (address, rest)
        parents = [rest.split("port=")[1].split()[0] for _, rest in behind.values()]
        assert sorted(parents) == sorted(ports), (parents, ports)
        for address, (kind, rest) in behind.items():
            assert address.endswith(":00.0") and "config=4096" in rest, (address, rest)
            assert rest.startswith(("virtio-pci", "nvme")), (address, kind, rest)
        assert (folder / "nvme").read_bytes()[4 << 16:5 << 16] == bytes(1 << 16)


def qemus_command_line():
    """As it is written for QEMU's Q35."""
    with tempfile.TemporaryDirectory(prefix="lodge-test-") as folder:
        folder = pathlib.Path(folder)
        initrd_with(folder / "initrd", script=FUNCTIONS + "exit 0")
        make_boot_disk(folder / "disk.img", initrd=folder / "initrd")
        result = subprocess.run(
            [paths.LODGE, "qemu", "-M", "q35", "-m", "512", "-nographic", "-snapshot", "-no-reboot",
             "-device", "pcie-root-port,id=rp1,chassis=1,addr=4", "-device", "pcie-root-port,id=rp2,chassis=2,addr=5",
             "-drive", f"if=none,id=d,file={folder}/disk.img,format=raw", "-device", "virtio-blk-pci,drive=d,bus=rp1,addr=0",
             "-netdev", "user,id=n", "-device", "virtio-net-pci,netdev=n,bus=rp2,addr=0,mac=52:54:00:aa:bb:cc"],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, timeout=SECONDS, check=True, text=True, errors="replace")
        found = functions(result.stdout)
        assert found["0000:01:00.0"][0] == "0x018000", found
        assert found["0000:02:00.0"][0] == "0x020000", found


main(firmware_starts_from_behind_ports, linux_finds_all, qemus_command_line)
