# SPDX-License-Identifier: Apache-2.0
"""Two guests on networks with names: addresses by DHCP, names, ping, TCP both ways, IPv4 and IPv6, a second card each on a
closed network."""

import hashlib
import http.server
import re
import threading

from kit import guest
from kit.case import main
from kit.peer import Lodge, Peer, need_namespaces

SETUP = r"""
try() { n=0; while ! "$@"; do n=$((n+1)); [ $n -lt 60 ] || { echo "failed: $*"; exit 1; }; sleep 1; done; }
cat >/tmp/udhcpc <<'END'
#!/bin/sh
case $1 in bound|renew)
  ip addr add $ip/$mask dev $interface
  [ -n "$router" ] && ip route add default via $router
  [ -n "$dns" ] && [ $interface = eth0 ] && { echo "search $domain"; echo "nameserver $dns"; } >/etc/resolv.conf
  echo "$interface $ip $router"
esac
END
chmod +x /tmp/udhcpc
mkdir -p /etc /srv
# Or the C library would load modules that are not there. (Its wget -T crashes, on any machine.)
for base in hosts services protocols networks passwd group; do echo "$base: files"; done | sed 's/^hosts.*/hosts: files dns/' >/etc/nsswitch.conf
cards=$(ls /sys/class/net | grep -c eth)
echo "cards $cards"
for card in eth0 eth1; do ip link set $card up; try udhcpc -q -n -f -t 10 -T 1 -i $card -s /tmp/udhcpc; done
cp /lodge/data /srv/data
httpd -p 80 -h /srv
six() { ip -6 -o addr show dev eth0 scope global | grep -v tentative | awk '{print $4}' | cut -d/ -f1 | head -n 1; }
have6() { [ -n "$(six)" ]; }
try have6
six >/srv/six.new
mv /srv/six.new /srv/six
"""

MEET = r"""
try timeout 60 wget -q -O /tmp/six http://OTHER/six
try timeout 60 wget -q -O /tmp/data http://OTHER.lab.internal/data
echo "data $(sha256sum </tmp/data | cut -d' ' -f1)"
try ping -4 -c 2 OTHER
try ping -6 -c 2 $(cat /tmp/six)
try timeout 60 wget -q -O /tmp/data6 "http://[$(cat /tmp/six)]/data"
echo "data6 $(sha256sum </tmp/data6 | cut -d' ' -f1)"
try ping -c 1 -I eth1 BACK
try timeout 60 wget -q -O /tmp/out http://10.0.2.2:PORT/
echo "out $(cat /tmp/out)"
# Until the other has what it wants, too.
echo met >/srv/met
try timeout 60 wget -q -O /tmp/met http://OTHER/met
sleep 3
"""


def two_guests():


    class Hello(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"hello")

        def log_message(self, *_):
            pass
    web = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hello)
    threading.Thread(target=web.serve_forever, daemon=True).start()
    with Lodge() as lodge:
        lodge("network", "create", "lab")
        lodge("network", "create", "back", "--kind", "isolated", "--subnet", "10.88.0.0/24", "--lease", "alpha=10.88.0.21",
              "--lease", "beta=10.88.0.22")
        environment = ["env", f"XDG_RUNTIME_DIR={lodge.folder}", f"XDG_CONFIG_HOME={lodge.folder}/config"]
        results = {}

        def boot(name, other, back):
            data = hashlib.sha512(name.encode()).digest() * 30000
            script = SETUP + MEET.replace("OTHER", other).replace("BACK", back).replace("PORT", str(web.server_address[1]))
            try:
                results[name] = guest.run_busybox(script, 240, files=[("data", data)], prefix=environment, name=name, net="lab",
                                                  options=("--net", "back"))
            except BaseException as error:  # told by the main thread
                results[name] = error
        threads = [threading.Thread(target=boot, args=arguments) for arguments in
                   (("alpha", "beta", "10.88.0.22"), ("beta", "alpha", "10.88.0.21"))]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        for name, other, back in (("alpha", "beta", "10.88.0.21"), ("beta", "alpha", "10.88.0.22")):
            if isinstance(results[name], BaseException):
                raise results[name]
            status, output = results[name]
            digest = hashlib.sha256(hashlib.sha512(other.encode()).digest() * 30000).hexdigest()
            for line in ("cards 2", f"data {digest}", f"data6 {digest}", "out hello", f"eth1 {back} "):
                assert line in output, f"{name}: no '{line}' in:\n{output}"
            assert status == 0, f"{name}: {status}:\n{output}"
    web.shutdown()


QUEUES = r"""
ip link set eth0 up
ip addr add 10.62.0.9/24 dev eth0
ls /sys/class/net/eth0/queues | tr '\n' ' '
n=0; while ! ping -c 1 10.62.0.5; do n=$((n+1)); [ $n -lt 30 ] || exit 1; sleep 1; done
# Flows of both CPUs: each sends on its own queue, and gets its answers there.
for n in 1 2 3 4; do
  for cpu in 1 2; do taskset $cpu wget -q -O /tmp/data$cpu http://10.62.0.5:8062/ || exit 1; done
done
sha256sum /tmp/data1 /tmp/data2
awk '/virtio[0-9]+-(in|out)put/ { print $NF, $2 + $3 }' /proc/interrupts
"""


def several_queues():
    """A guest with two CPUs uses both pairs of queues, each CPU its own; counted by the guest and by the host."""
    need_namespaces()
    with Lodge() as lodge:
        lodge("network", "create", "wide", "--kind", "isolated", "--subnet", "10.62.0.0/24")
        with Peer(lodge, "wide", "peer", "ip=10.62.0.5") as peer:
            server = peer.start("cd $(mktemp -d) && head -c 3000000 /dev/zero >index.html && exec python3 -u -m http.server 8062")
            peer.wait_for_port(8062)
            environment = ["env", f"XDG_RUNTIME_DIR={lodge.folder}", f"XDG_CONFIG_HOME={lodge.folder}/config"]
            status, output = guest.run_busybox(QUEUES, 240, prefix=environment, name="box", net="wide,ip=10.62.0.9,queues=2", cpus=2)
            server.kill()
        assert status == 0, output
        assert "rx-0 rx-1 tx-0 tx-1" in output, output
        assert output.count(hashlib.sha256(bytes(3000000)).hexdigest()) == 2, output
        counts = {name: int(count) for name, count in re.findall(r"^virtio\d+-(\w+\.\d) (\d+)\r?$", output, re.MULTILINE)}
        # The last rows are the card's; answers come to both.
        assert counts["input.0"] > 20 and counts["input.1"] > 20, output


main(two_guests, several_queues)
