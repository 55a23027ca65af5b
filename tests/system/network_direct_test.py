# SPDX-License-Identifier: Apache-2.0
"""Guests whose cards have a tap device of their own in the host's bridge: what passes, what does not, what goes through the
switch after all, and what is left."""

import contextlib
import functools
import hashlib
import json
import os
import shutil
import signal
import subprocess
import tempfile

from kit import paths
from kit.case import main
from kit.machine import Machine, Spec
from kit.peer import Peer
from kit.site import Site, need_rights, wait_until

DHCP = r"""
cat >/tmp/udhcpc <<'END'
#!/bin/sh
case $1 in bound|renew) ip addr add $ip/$mask dev $interface; [ -n "$router" ] && ip route add default via $router; echo $ip >/tmp/ip; esac
END
chmod +x /tmp/udhcpc; ip link set eth0 up; udhcpc -q -n -f -t 30 -T 1 -i eth0 -s /tmp/udhcpc
"""
MAC = "52:54:00:00:00:07"


class Guest:
    """A machine in a host's namespace, and commands on its console."""

    def __init__(self, site, net, name="guest"):
        environment = ["env", f"XDG_RUNTIME_DIR={site.lodge.folder}", f"XDG_CONFIG_HOME={site.lodge.folder}/config"]
        self.machine = Machine(Spec(net=f"{net},mac={MAC}", name=name, append="console=ttyS0 quiet", memory="256M"),
                               prefix=[*site.host.enter, *environment])
        self.count = 0

    def run(self, command, seconds=60, status=0):
        """Output of a command that ends so (None: however)."""
        self.count += 1
        console = self.machine.console
        begin = len(console.text)
        console.send(f"{{ {command.strip()}\n}}; echo \"ended\"-{self.count}-$?\n")
        end = console.wait_for(rf"^ended-{self.count}-(\d+)\r?$", seconds)
        text = console.text[begin:end.start()]
        assert status is None or int(end.group(1)) == status, f"{command}: {end.group(1)}:\n{text}"
        return text

    def pings(self, address, source="", size=56):
        option = f"-I {source}" if source else ""
        return "0% packet loss" in self.run(f"ping -s {size} -c 2 -W 2 {option} {address}", status=None).replace("100% packet", "")

    def must_ping(self, address):
        wait_until(lambda: self.pings(address), f"{address} does not answer", 60)

    def __enter__(self):
        self.machine.__enter__()
        self.machine.console.wait_for("lodge-guest: ready", 120)
        return self

    def __exit__(self, *arguments):
        self.machine.__exit__(*arguments)


def port_of(site, network, name="guest"):
    show = json.loads(site.lodge("network", "show", network, "--json").stdout)
    return next(p for p in show["ports"] if p["name"] == name)


def held(site, network):
    return port_of(site, network)["direct"]["held"]


@contextlib.contextmanager
def served(namespace, content):
    """A file at port 80 of the namespace; PUT gives its checksum."""
    with tempfile.TemporaryDirectory() as folder:
        with open(f"{folder}/file", "wb") as file:
            file.write(content)
        server = namespace.start(f"exec busybox httpd -f -p 80 -h {folder}")
        namespace.wait_for_port(80)
        try:
            yield
        finally:
            server.kill()
            server.wait()


SNIFFER = """
import socket, sys, time
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x800))
print("up", flush=True)
end, seen = time.monotonic() + 6, 0
while (left := end - time.monotonic()) > 0:
    s.settimeout(left)
    try:
        frame = s.recv(2000)
    except TimeoutError:
        break
    seen += frame[6:12].hex(":") == sys.argv[1] and frame[23] == 17 and frame[34:36] == bytes((0, 67))
print(seen)
"""


def offers_of(mac, peer):
    """How many messages of a DHCP server at `mac` reach a peer that asks."""
    sniffer = peer.start(f"python3 -c '{SNIFFER}' {mac}")
    assert sniffer.stdout.readline() == "up\n"
    peer.run("busybox udhcpc -i eth0 -n -q -t 3 -T 1 -s /bin/true", check=False)
    return int(sniffer.communicate()[0])


def nat():
    need_rights()
    with Site() as site:
        lodge, before = site.lodge, site.links()
        lodge("network", "create", "out", "--kind", "nat", "--subnet", "192.168.77.0/24")
        content = os.urandom(4 << 20)
        with Guest(site, "out,direct=on") as guest, Peer(lodge, "out", "two") as two, served(site.lan, content):
            guest.run(DHCP)
            address = guest.run("cat /tmp/ip").split()[-1]
            assert address.startswith("192.168.77."), address
            port = port_of(site, "out")
            device = port["direct"]["device"]
            assert not held(site, "out") and port["addresses" if "addresses" in port else "seen"] == [address], port
            assert device in site.host.run("ip -o link show type tun") and "master lg-out" in site.host.run(f"ip -o link show {device}")
            guest.must_ping("192.168.77.1")
            guest.must_ping(two.address)
            two.must_ping(address)
            site.host.must_ping(address)
            got = guest.run("wget -q -O - http://203.0.113.1/file | sha256sum", 120)
            assert hashlib.sha256(content).hexdigest() in got, got
            assert port_of(site, "out")["counters"]["bytesOut"] > len(content)
            six = guest.run("sleep 2; ip -6 -o addr show dev eth0 scope global | awk '{print $4}'").split()[-1].split("/")[0]
            site.host.must_ping(six)
            two.must_ping(six)
            # What comes in pieces passes the kernel's guard, too.
            for target in (two.address, two.address6()):
                assert guest.pings(target, size=4000), f"no pieces from {target}"
            assert "Name:" in guest.run("nslookup two.out.internal 192.168.77.2")

            captured_meanwhile(site, guest, device)
            changed_meanwhile(site, guest, two)
            spoofed(site, guest, two, address)

            # The network's process is killed: its successor takes the device into its bridge.
            os.kill(int(lodge.network_process().name), signal.SIGKILL)
            wait_until(lambda: lodge("network", "show", "out", "--json", check=False).returncode == 0, "no successor", 40)
            guest.must_ping("192.168.77.1")
            assert port_of(site, "out")["direct"] == {"device": device, "held": False, "vhost": False}
        wait_until(lambda: site.links() == before, f"left behind: {site.links() - before}")
        assert "lodge" not in site.tables(), site.tables()


def captured_meanwhile(site, guest, device):
    """A capture of a direct port: its frames go through the switch meanwhile."""
    with tempfile.TemporaryDirectory() as folder:
        capture = subprocess.Popen([*site.host.enter, str(paths.LODGE), "network", "capture", "out", "--port", "guest", "-w", f"{folder}/c"],
                                   env=site.lodge.environment, stderr=subprocess.PIPE, text=True)
        wait_until(lambda: held(site, "out"), "not held")
        guest.must_ping("192.168.77.1")
        guest.run("wget -q -O - http://203.0.113.1/file | sha256sum", 120)
        capture.send_signal(signal.SIGINT)
        assert capture.wait(20) == 0
        wait_until(lambda: not held(site, "out"), "still held")
        guest.must_ping("192.168.77.1")
        if shutil.which("tshark"):
            seen = subprocess.run(["tshark", "-r", f"{folder}/c", "-Y", "icmp.type == 0 || icmp.type == 8 || tcp.port == 80", "-T", "fields",
                                   "-e", "icmp.type", "-e", "eth.src"], capture_output=True, text=True).stdout
            assert f"8\t{MAC}" in seen and seen.count("\n") > 100 and "\n0\t" in "\n" + seen, seen[:2000]


def changed_meanwhile(site, guest, two):
    """What the bridge cannot do, the switch does, and back."""
    change = functools.partial(site.lodge, "network", "edit", "out", "--port", "guest", "--set")
    change("link=down")
    assert held(site, "out") and not guest.pings(two.address)
    change("link=up")
    guest.must_ping(two.address)
    change("delay=200ms")
    assert held(site, "out")
    guest.must_ping(two.address)
    assert float(guest.run(f"ping -c 3 {two.address}").split("min/avg/max = ")[1].split("/")[0]) > 200
    change("delay=0us")
    assert not held(site, "out")
    site.lodge("network", "edit", "out", "--egress", "deny 203.0.113.1")
    assert held(site, "out") and not guest.pings("203.0.113.1")
    guest.must_ping(two.address)
    site.lodge("network", "edit", "out", "--no-egress-rules")
    assert not held(site, "out")
    guest.must_ping("203.0.113.1")


def spoofed(site, guest, two, address):
    """The guard in the kernel."""
    guest.run(f"ip addr add {two.address}/32 dev eth0")
    assert not guest.pings("192.168.77.1", source=two.address), "another's address passes"
    guest.run(f"ip addr del {two.address}/32 dev eth0")
    guest.run("ip addr add 192.168.77.1/32 dev eth0; ip link set eth0 down; ip link set eth0 up; arping -c 2 -A -I eth0 192.168.77.1", status=None)
    guest.run("ip addr del 192.168.77.1/32 dev eth0; ip route add default via 192.168.77.1", status=None)
    assert MAC not in two.run("ip neigh show 192.168.77.1"), "the gateway's address was taken"
    guest.must_ping("192.168.77.1")
    guest.run("ip link set eth0 down; ip link set eth0 address 02:00:00:00:00:77; ip link set eth0 up; ip route add default via 192.168.77.1")
    assert not guest.pings("192.168.77.1"), "another hardware address passes"
    guest.run(f"ip link set eth0 down; ip link set eth0 address {MAC}; ip link set eth0 up; ip route add default via 192.168.77.1")
    guest.must_ping("192.168.77.1")
    guest.run("printf 'start 192.168.77.200\\nend 192.168.77.210\\ninterface eth0\\n' >/tmp/udhcpd; touch /tmp/leases; mkdir -p /var/lib/misc /var/run; udhcpd /tmp/udhcpd")
    assert offers_of(MAC, two) == 0, "a machine is a DHCP server"
    site.lodge("network", "edit", "out", "--port", "guest", "--set", "spoof=on")
    assert offers_of(MAC, two) > 0 and not held(site, "out")
    site.lodge("network", "edit", "out", "--port", "guest", "--set", "spoof=off")
    assert offers_of(MAC, two) == 0


def bridge_and_internal():
    need_rights()
    with Site() as site:
        lodge, before = site.lodge, site.links()
        lodge("network", "create", "wire", "--kind", "bridge", "--uplink", "card0")
        with Guest(site, "wire,direct=on") as guest, Peer(lodge, "wire", "two") as two:
            guest.run(DHCP)
            address = guest.run("cat /tmp/ip").split()[-1]
            assert address.startswith("203.0.113."), address
            guest.must_ping("203.0.113.1")
            guest.must_ping("203.0.113.2")
            guest.must_ping(two.address)
            site.lan.must_ping(address)
            # Who used it first has it: the one behind the switch, which the kernel's rules know from its frames.
            guest.run(f"ip addr add {two.address}/32 dev eth0")
            assert not guest.pings("203.0.113.1", source=two.address), "another's address passes"
            assert not held(site, "wire")
        wait_until(lambda: site.links() == before, f"left behind: {site.links() - before}")
        assert "lodge" not in site.tables(), site.tables()

        lodge("network", "create", "in", "--kind", "internal", "--subnet", "192.168.78.0/24")
        with Guest(site, "in,direct=on,ip=192.168.78.9") as guest:
            guest.run(DHCP)
            assert guest.run("cat /tmp/ip").split()[-1] == "192.168.78.9"
            guest.must_ping("192.168.78.1")
            guest.run("ip addr add 192.168.78.10/32 dev eth0")
            assert not guest.pings("192.168.78.1", source="192.168.78.10"), "an address that is not its own passes"
            # The helper is killed: the guest goes on, and the network's end takes all away.
            show = json.loads(lodge("network", "show", "in", "--json").stdout)
            os.kill(show["helper"]["pid"], signal.SIGKILL)
            guest.must_ping("192.168.78.1")
        wait_until(lambda: site.links() == before, f"left behind: {site.links() - before}")
        wait_until(lambda: "lodge" not in site.tables(), "a table stays")


def where_it_cannot_be():
    need_rights()
    with Site() as site:
        lodge = site.lodge
        lodge("network", "create", "alone", "--kind", "isolated")
        kernel = ("run", "--kernel", paths.VMLINUZ, "--net")
        lodge.fails(*kernel, "alone,direct=on", saying="has no bridge of the host's")
        if not os.path.exists("/dev/vhost-net"):
            lodge("network", "create", "out", "--kind", "nat", "--subnet", "192.168.77.0/24")
            lodge.fails(*kernel, "out,vhost=on", saying="open /dev/vhost-net")
            # Without it nothing changes where nothing is said.
            with Guest(site, "out") as guest:
                guest.run(DHCP)
                assert "direct" not in port_of(site, "out")
                guest.must_ping("192.168.77.1")


main(nat, bridge_and_internal, where_it_cannot_be)
