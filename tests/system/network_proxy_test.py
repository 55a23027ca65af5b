# SPDX-License-Identifier: Apache-2.0
"""lodge proxy: programs on the host reach servers that only a closed network's machines reach."""

import os
import pathlib
import pwd
import shutil
import socket
import struct
import subprocess
import tempfile
import time

from kit import paths
from kit.case import Skip, main
from kit.peer import ROOT, Lodge, Peer, need_namespaces


class Proxy:
    """The command, with what it listens at."""

    def __init__(self, lodge, network, *words, prefix=()):
        self.process = subprocess.Popen([*prefix, str(paths.LODGE), "proxy", network, "--socks", "127.0.0.1:0", "--http", "127.0.0.1:0",
                                         *words], env=lodge.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        lines = [self.process.stdout.readline() for _ in range(2)]
        if not all(lines):
            raise AssertionError(self.process.communicate()[1])
        self.at = dict(line.split() for line in lines)
        self.socks, self.http = self.at["socks"], self.at["http"]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        assert self.process.wait(20) == 0

    def dial(self):
        host, port = self.socks.rsplit(":", 1)
        s = socket.create_connection((host, int(port)), timeout=20)
        s.sendall(b"\5\1\0")
        assert s.recv(2) == b"\5\0"
        return s


def curl(*words):
    return subprocess.run(["curl", "-sS", "--max-time", "30", "--noproxy", "", *words], capture_output=True, text=True)


def serve(peer):
    """A web server on port 80 and an echo of datagrams on port 7."""
    web = peer.start("mkdir -p /tmp/www-$$ && cd /tmp/www-$$ && echo only inside >index.html && exec python3 -c \"\n"
                     "import http.server, socket, threading\n"
                     "class S(http.server.ThreadingHTTPServer): address_family = socket.AF_INET6\n"
                     "class H(http.server.SimpleHTTPRequestHandler):\n"
                     "  def log_message(self, *_): pass\n"
                     "for family in (socket.AF_INET, socket.AF_INET6):\n"
                     "  u = socket.socket(family, socket.SOCK_DGRAM)\n"
                     "  if family == socket.AF_INET6: u.setsockopt(41, 26, 1)\n"
                     "  u.bind(('', 7))\n"
                     "  def echo(u=u):\n"
                     "    while True:\n"
                     "      d, a = u.recvfrom(65536); u.sendto(d, a)\n"
                     "  threading.Thread(target=echo, daemon=True).start()\n"
                     "s = S(('::', 80), H); print('up', flush=True); s.serve_forever()\"")
    assert web.stdout.readline() == "up\n"
    return web


def curl_by_name_and_address():
    need_namespaces()
    with Lodge() as lodge:
        lodge("network", "create", "cellar", "--kind", "isolated")
        with Peer(lodge, "cellar", "shelf") as shelf:
            web = serve(shelf)
            with Proxy(lodge, "cellar") as proxy:
                for url in ("http://shelf/", "http://shelf.cellar.internal/", f"http://{shelf.address}/"):
                    done = curl("--proxy", f"socks5h://{proxy.socks}", url)
                    assert done.stdout == "only inside\n", (url, done)
                    for words in ((), ("--proxytunnel",)):
                        done = curl("--proxy", f"http://{proxy.http}", *words, url)
                        assert done.stdout == "only inside\n", (url, words, done)
                six = shelf.address6()
                for _ in range(40):  # until the proxy's own IPv6 address has come by an advertisement
                    done = curl("--proxy", f"socks5h://{proxy.socks}", f"http://[{six}]/")
                    if done.stdout == "only inside\n":
                        break
                    time.sleep(0.25)
                assert done.stdout == "only inside\n", done
                # What is not there is told as such.
                done = curl("--proxy", f"socks5h://{proxy.socks}", "http://shelf:81/")
                assert done.returncode == 97 and "(5)" in done.stderr, done
                done = curl("--proxy", f"socks5h://{proxy.socks}", "http://nobody/")
                assert done.returncode == 97 and "(4)" in done.stderr, done
                done = curl("--proxy", f"http://{proxy.http}", "http://nobody/")
                assert "knows no address of nobody" in done.stdout, done
                done = curl(f"http://{proxy.http}/")
                assert "no request that a proxy answers" in done.stdout, done
                datagrams(proxy, shelf)
                many(proxy)
                # The host's own servers are not inside.
                with socket.socket() as own:
                    own.bind(("127.0.0.1", 0))
                    own.listen()
                    done = curl("--proxy", f"socks5h://{proxy.socks}", f"http://127.0.0.1:{own.getsockname()[1]}/")
                    assert done.returncode == 97, done
                # A machine's name stands for its network.
                with Proxy(lodge, "shelf", "--name", "second") as second:
                    assert curl("--proxy", f"socks5h://{second.socks}", "http://shelf/").stdout == "only inside\n"
                # The network's process dies: the proxy starts it again, though the peer does not come back by itself.
                lodge("network", "down", "cellar", "--force")
                for _ in range(100):
                    show = lodge("network", "show", "cellar").stdout
                    if "proxy" in show:
                        break
                    time.sleep(0.2)
                assert "proxy" in show, show
            web.kill()
        lodge.fails("proxy", "nowhere", "--socks", "127.0.0.1:1080", saying="there is no network 'nowhere'")
        lodge.fails("proxy", "cellar", saying="--socks 127.0.0.1:1080")
        lodge.fails("proxy", "cellar", "--socks", "localhost:1080", saying="no address and port")
        lodge.fails("proxy", "cellar", "--socks", "192.0.2.1:1080", saying="listen at 192.0.2.1 port 1080")


def datagrams(proxy, shelf):
    """UDP ASSOCIATE, by address, by name and by IPv6."""
    stream = proxy.dial()
    stream.sendall(b"\5\3\0\1" + bytes(6))
    answer = stream.recv(32)
    assert answer[:4] == b"\5\0\0\1", answer
    where = (socket.inet_ntoa(answer[4:8]), struct.unpack(">H", answer[8:10])[0])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.settimeout(20)
        for target in (b"\1" + socket.inet_aton(shelf.address), b"\3\5shelf", b"\4" + socket.inet_pton(socket.AF_INET6, shelf.address6())):
            s.sendto(b"\0\0\0" + target + b"\0\7" + b"ping " + target, where)
            got = s.recv(1000)
            assert got.endswith(b"ping " + target), (target, got)
        s.sendto(b"\0\0\1\1" + bytes(6) + b"a fragment", where)  # is dropped
        # Who is not the client is not heard.
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
            other.settimeout(1)
            other.sendto(b"\0\0\0\1" + socket.inet_aton(shelf.address) + b"\0\7x", where)
            try:
                raise AssertionError(other.recv(1000))
            except TimeoutError:
                pass
    stream.close()


def many(proxy):
    """Clients that talk nonsense or nothing do not hinder others."""
    silent = [proxy.dial() for _ in range(50)]
    for s in silent[:10]:
        s.sendall(b"\5\1\0\3\xff")
    for s in silent[10:20]:
        s.sendall(os.urandom(300))
    assert curl("--proxy", f"socks5h://{proxy.socks}", "http://shelf/").stdout == "only inside\n"
    for s in silent:
        s.close()


def egress_rules_hold():
    """The proxy is bound by the network's rules as its machines are."""
    need_namespaces()
    with Lodge() as lodge:
        lodge("network", "create", "closed", "--egress-default", "deny", "--egress", "allow 192.0.2.0/24")
        with Proxy(lodge, "closed") as proxy:
            with proxy.dial() as s:
                s.sendall(b"\5\1\0\1" + socket.inet_aton("203.0.113.9") + b"\0\x50")
                for _ in range(100):
                    if "egress of" in lodge.log("closed"):
                        break
                    time.sleep(0.1)
            assert "egress of 'proxy' to tcp 203.0.113.9 port 80 refused" in lodge.log("closed"), lodge.log("closed")


def ssh_goes_through():
    need_namespaces()
    for program in ("dropbear", "dropbearkey", "ssh", "nc.openbsd"):
        if not shutil.which(program, path=os.environ["PATH"] + ":/usr/sbin"):
            raise Skip(f"there is no {program}")
    if not ROOT:
        raise Skip("the server takes logins as root only")
    with Lodge() as lodge, tempfile.TemporaryDirectory() as folder:
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", f"{folder}/user"], check=True)
        subprocess.run(["dropbearkey", "-t", "ed25519", "-f", f"{folder}/host"], check=True, capture_output=True)
        home = pathlib.Path(folder, "home")
        (home / ".ssh").mkdir(parents=True)
        (home / ".ssh/authorized_keys").write_text(pathlib.Path(folder, "user.pub").read_text())
        for path in (home, home / ".ssh", home / ".ssh/authorized_keys"):
            path.chmod(0o700)
        lodge("network", "create", "cellar", "--kind", "isolated")
        with Peer(lodge, "cellar", "server") as server, Proxy(lodge, "cellar") as proxy:
            # The server looks for keys in root's home, which is another one for it.
            daemon = server.start(f"exec unshare -m sh -c 'mount --bind {home} /root && "
                                  f"exec /usr/sbin/dropbear -F -E -s -p 2222 -r {folder}/host -P {folder}/pid'")
            for _ in range(20):
                done = subprocess.run(["ssh", "-F", "none", "-i", f"{folder}/user", "-p", "2222", "-o", "BatchMode=yes",
                                       "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR",
                                       "-o", f"ProxyCommand=nc.openbsd -X 5 -x {proxy.socks} %h %p", "root@server",
                                       "ip -4 -o addr show dev eth0; head -c 3000000 /dev/zero | sha256sum"],
                                      capture_output=True, text=True, timeout=120)
                if done.returncode == 0:
                    break
                time.sleep(0.5)
            assert server.address in done.stdout and done.stdout.count("\n") == 2, done
            daemon.terminate()


def database_goes_through():
    need_namespaces()
    for program in ("mariadbd", "mariadb-install-db", "mariadb", "proxychains4"):
        if not shutil.which(program, path=os.environ["PATH"] + ":/usr/sbin"):
            raise Skip(f"there is no {program}")
    with Lodge() as lodge, tempfile.TemporaryDirectory(prefix="lodge-db-") as folder:
        user = f"--user={'root' if ROOT else pwd.getpwuid(os.geteuid()).pw_name}"
        subprocess.run(["mariadb-install-db", "--no-defaults", f"--datadir={folder}/data", "--skip-test-db", user],
                       check=True, capture_output=True)
        lodge("network", "create", "cellar", "--kind", "switch", "--uplink", "user")
        with Peer(lodge, "cellar", "base") as base, Proxy(lodge, "cellar") as proxy:
            server = base.start(f"exec /usr/sbin/mariadbd --no-defaults --datadir={folder}/data --socket={folder}/s --skip-grant-tables "
                                f"--skip-networking=0 --port=3306 --bind-address=0.0.0.0 {user}")
            host, port = proxy.socks.rsplit(":", 1)
            pathlib.Path(folder, "chain.conf").write_text(
                f"strict_chain\nproxy_dns\ntcp_connect_time_out 30000\ntcp_read_time_out 30000\n[ProxyList]\nsocks5 {host} {port}\n")
            for _ in range(60):
                done = subprocess.run(["proxychains4", "-q", "-f", f"{folder}/chain.conf", "mariadb", "--no-defaults", "-h", base.address,
                                       "-u", "root", "-BNe", "select repeat('x', 3000000), @@version_comment"],
                                      capture_output=True, text=True, timeout=120)
                if done.returncode == 0:
                    break
                time.sleep(0.5)
            assert len(done.stdout) > 3000000 and "x\t" in done.stdout, done.stderr
            server.terminate()
            server.wait(60)


def works_without_privileges():
    """The same as a user without rights, where such may make namespaces."""
    need_namespaces()
    if not ROOT:
        raise Skip("the other tests show it")
    # The tap driver's file is everybody's, as Debian's udev has it; where it is not, another one in a mount namespace stands for it.
    other = ["unshare", "--mount", "sh", "-c",
             "[ -c $0 ] || mknod -m 666 $0 c 10 200; mount --bind $0 /dev/net/tun && exec \"$@\"", f"/tmp/lodge-tun-{os.getpid()}",
             "setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"]
    tried = subprocess.run([*other, "unshare", "--user", "--map-root-user", "--net", "ip", "tuntap", "add", "dev", "t0", "mode", "tap"],
                           capture_output=True, text=True)
    if tried.returncode != 0:
        raise Skip(f"users may not: {tried.stderr.strip()}")
    with Lodge(other) as lodge:
        os.chown(lodge.folder, 65534, 65534)
        lodge("network", "create", "cellar", "--kind", "isolated")
        with Proxy(lodge, "cellar", prefix=other) as proxy:
            done = curl("--proxy", f"socks5h://{proxy.socks}", "http://proxy:9/")
            assert "(5)" in done.stderr, done
        assert "'lodge proxy' works" in " ".join(lodge("doctor", check=False).stdout.split())
        # Where users may not make namespaces, one line says so and what to do.
        forbid = ["unshare", "--user", "--map-root-user", "sh", "-c", "echo 0 >/proc/sys/user/max_user_namespaces; "
                  "echo 0 >/proc/sys/user/max_net_namespaces; exec \"$@\"", "sh"]
        bound = Lodge([*other, *forbid])
        bound.folder, bound.environment = lodge.folder, lodge.environment
        bound.fails("proxy", "cellar", "--socks", "127.0.0.1:0", saying="this user may not make a network namespace")
        assert "not 'lodge proxy': this user may not make network namespaces" in " ".join(bound("doctor", check=False).stdout.split())
    os.unlink(other[5])


main(curl_by_name_and_address, egress_rules_hold, ssh_goes_through, database_goes_through, works_without_privileges)
