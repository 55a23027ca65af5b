# SPDX-License-Identifier: Apache-2.0
"""restricted_host.py COMMAND...: runs the command under a seccomp filter that forbids what containers often do:
memfd_create, userfaultfd, membarrier and perf_event_open answer EPERM."""

import ctypes
import os
import struct
import sys

# Linux include/uapi/linux/{prctl,seccomp,filter}.h, arch/x86/entry/syscalls/syscall_64.tbl
PR_SET_SECCOMP, SECCOMP_MODE_FILTER, PR_SET_NO_NEW_PRIVS = 22, 2, 38
LOAD_WORD, JUMP_IF_EQUAL, RETURN = 0x20, 0x15, 0x06
ALLOW, ERRNO, EPERM = 0x7fff0000, 0x00050000, 1
FORBIDDEN = {"memfd_create": 319, "userfaultfd": 323, "membarrier": 324, "perf_event_open": 298}


def main():
    numbers = list(FORBIDDEN.values())
    program = [(LOAD_WORD, 0, 0, 0)]
    for i, number in enumerate(numbers):
        program.append((JUMP_IF_EQUAL, len(numbers) - i, 0, number))
    program += [(RETURN, 0, 0, ALLOW), (RETURN, 0, 0, ERRNO | EPERM)]
    code = b"".join(struct.pack("HBBI", *step) for step in program)
    buffer = ctypes.create_string_buffer(code, len(code))
    filter_program = struct.pack("HxxxxxxP", len(program), ctypes.addressof(buffer))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 or libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, filter_program) != 0:
        sys.exit(f"seccomp: {os.strerror(ctypes.get_errno())}")
    os.execvp(sys.argv[1], sys.argv[1:])


main()
