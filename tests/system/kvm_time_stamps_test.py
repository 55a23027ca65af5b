# SPDX-License-Identifier: Apache-2.0
"""The kvm engine and a guest whose time stamp counter has another rate than the host's, on a KVM that cannot scale it: one level down,
where QEMU's TCG has no such processor. It is refused by name, before anything stops: at a start and a move; where
the engine is left open it is another one."""

import re

from kit.case import Skip, main
from kit.nested import FirstLevel, have_kvm_here

SECONDS = 800
RATE = 6000
FIRST = """
run() { lodge run --name m --kernel /lodge/vmlinuz --initrd /lodge/initrd --memory 128M --append 'console=ttyS0 quiet' "$@"; }
fails() { "$@" </dev/null >/tmp/refused 2>&1; echo "refused: status $? $(cat /tmp/refused)"; }
fails run --engine kvm --cpu host,tsc-frequency=150M
fails run --engine kvm --cpu host,tsc-frequency=RATEM --cpus 2
# With what KVM alone has it is no other engine.
fails run --engine auto --nested --cpu host,tsc-frequency=RATEM
run --engine auto --cpu host,tsc-frequency=RATEM </dev/null >/tmp/console 2>/tmp/errors &
tries=0
until lodge stats m >/tmp/counters 2>&1; do
  sleep 0.2; tries=$((tries + 1))
  [ $tries -lt 600 ] || { cat /tmp/errors /tmp/counters; exit 1; }
done
fails lodge engine m kvm
# It goes on.
before=$(lodge stats m | sed -n 's/^vcpu0.translated_instructions //p'); sleep 3
echo "ran $before $(lodge stats m | sed -n 's/^vcpu0.translated_instructions //p')"
lodge kill m
cat /tmp/errors
"""


def what_kvm_cannot_scale_is_refused():
    if have_kvm_here():
        raise Skip("this host's KVM works, and may scale")
    with FirstLevel(FIRST.replace("RATE", str(RATE))) as guest:
        status, output = guest.result(SECONDS)
    assert status == 0, output[-4000:]
    refused = re.findall(r"^refused: status (\d+) (.*)$", output, re.MULTILINE)
    assert len(refused) == 4, output[-4000:]
    for (code, text), rate in zip(refused, (150, RATE, RATE, RATE)):
        assert code == "2" and f"{rate}.000 MHz" in text and "KVM_CAP_TSC_CONTROL" in text and "--engine translate" in text, output[-4000:]
    assert re.search(rf"engine kvm: the guest's time stamp counter runs at {RATE}.000 MHz.*the machine gets 'translate'", output), output[-4000:]
    before, after = re.search(r"^ran +(\d+) +(\d+)$", output, re.MULTILINE).groups()
    assert int(after) > int(before), output[-4000:]


main(what_kvm_cannot_scale_is_refused)
