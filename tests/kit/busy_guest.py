# SPDX-License-Identifier: Apache-2.0
"""A busybox guest that is busy and checks itself, for machines that are moved or saved meanwhile."""

import hashlib
import pathlib
import subprocess
import tempfile

from kit.nested import packed

# Four things at once: files that are written, dropped from memory, read again and compared; arithmetic with a known
# result; a connection to the host; and a compiler, whose objects must be what they are on the host (of compiler_files()).
# Each second it says how far they are.
WORK = """
for each in files sums counts objects; do echo 0 >/tmp/$each; done
mkdir -p /data; mount -t ext4 /dev/vda /data || exit 1
ip link set eth0 up; udhcpc -i eth0 -s /etc/udhcpc.script -q -n >/dev/null 2>&1 || exit 2
(
  n=0
  while [ ! -e /tmp/stop ]; do
    n=$((n + 1))
    dd if=/dev/urandom of=/tmp/data bs=64k count=8 2>/dev/null
    cp /tmp/data /data/file.$((n % 5)); sync; echo 3 >/proc/sys/vm/drop_caches
    a=$(sha256sum </tmp/data); b=$(sha256sum </data/file.$((n % 5)))
    [ "$a" = "$b" ] || { echo "BROKEN file $n"; break; }
    echo $n >/tmp/files
  done
) &
(
  n=0
  while [ ! -e /tmp/stop ]; do
    s=0; i=0
    while [ $i -lt 3000 ]; do s=$(((s * 31 + i) % 1000003)); i=$((i + 1)); done
    [ -z "$first" ] && first=$s
    [ $s = $first ] || { echo "BROKEN sum $s"; break; }
    n=$((n + 1)); echo $n >/tmp/sums
  done
) &
(
  mkfifo /tmp/in /tmp/out
  nc HOST PORT </tmp/out >/tmp/in &
  exec 3>/tmp/out 4</tmp/in
  n=0
  while [ ! -e /tmp/stop ]; do
    n=$((n + 1)); echo "count $n" >&3
    read got <&4 || { echo "LOST the connection after $n"; break; }
    [ "$got" = "$n" ] || { echo "BROKEN connection: $got, not $n"; break; }
    echo $n >/tmp/counts; usleep 20000
  done
) &
(
  cd /lodge
  n=0
  while [ ! -e /tmp/stop ]; do
    ./tcc -nostdinc -c source.c -o /tmp/object || { echo "BROKEN compiler"; break; }
    o=$(sha256sum </tmp/object)
    [ "${o%% *}" = "$(cat object.sum)" ] || { echo "BROKEN object"; break; }
    n=$((n + 1)); echo $n >/tmp/objects
  done
) &
tick=0
while [ ! -e /tmp/stop ]; do
  tick=$((tick + 1))
  done="$(cat /tmp/files) $(cat /tmp/sums) $(cat /tmp/counts) $(cat /tmp/objects)"
  now=$(date +%s)
  read -r up idle </proc/uptime  # last, and without a process: whoever sees the line looks at another clock then
  echo "at $tick up $up date $now done $done"
  sleep 1
done
"""
PROGRESS = r"^at (\d+) up ([\d.]+) date (\d+) done (\d+) (\d+) (\d+) (\d+)(?=\s)"


def _source(functions):
    """A C program of so many functions that needs no header."""
    parts = ["typedef unsigned long u64;\nstruct item { u64 key; int values[6]; struct item *next; };\n"]
    for n in range(functions):
        parts.append(f"""
static u64 step{n}(struct item *list, u64 seed) {{
  u64 sum = seed ^ 0x{(n * 2654435761) & 0xffffffff:x}u;
  for (struct item *at = list; at; at = at->next) {{
    switch ((at->key + {n}) % 5) {{
      case 0: sum += at->values[{n % 6}]; break;
      case 1: sum = sum << {n % 13 + 1} | sum >> {63 - n % 13}; break;
      case 2: at->values[{(n + 1) % 6}] = (int)(sum * {2 * n + 1}); break;
      default: sum -= (u64)(double)(at->key & 1023) * {n}.5;
    }}
  }}
  return sum{f" + step{n - 1}(list, sum)" if n else ""};
}}""")
    return "".join(parts) + f"\nu64 all(struct item *list) {{ return step{functions - 1}(list, 1); }}\n"


def compiler_files():
    """(name, mode, data) of what the compiling takes: tcc with its libraries, a source, and the object's checksum."""
    source = _source(25).encode()
    with tempfile.TemporaryDirectory(prefix="lodge-test-") as folder:
        (pathlib.Path(folder) / "source.c").write_bytes(source)
        subprocess.run(["tcc", "-nostdinc", "-c", "source.c", "-o", "object"], check=True, cwd=folder)
        digest = hashlib.sha256((pathlib.Path(folder) / "object").read_bytes()).hexdigest()
    return [*packed("/usr/bin/tcc", "tcc"), ("lodge/source.c", 0o644, source), ("lodge/object.sum", 0o644, digest.encode())]
