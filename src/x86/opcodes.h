// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string_view>

namespace lodge::x86 {

/// What an instruction means. Every operation that Lodge itself carries out has an entry; instructions that only
/// compute on registers and one memory operand (vector, x87, MMX, AES...) share `native` and are executed by the host's
/// own CPU.
enum class Op : std::uint16_t {
  // Data movement
  mov,
  movzx,
  movsx,
  movsxd,
  movbe,
  lea,
  xchg,
  bswap,
  cmov,
  setcc,
  push,
  pop,
  pusha,
  popa,
  pushf,
  popf,
  enter,
  leave,
  cbw,
  cwd,
  xlat,
  lahf,
  sahf,
  movnti,
  movsreg_from,
  movsreg_to,
  les,
  lds,
  lss,
  lfs,
  lgs,
  // Integer arithmetic and logic
  add,
  or_,
  adc,
  sbb,
  and_,
  sub,
  xor_,
  cmp,
  test,
  inc,
  dec,
  not_,
  neg,
  mul,
  imul,
  imul2,
  imul3,
  div,
  idiv,
  rol,
  ror,
  rcl,
  rcr,
  shl,
  shr,
  sar,
  shld,
  shrd,
  bt,
  bts,
  btr,
  btc,
  bsf,
  bsr,
  popcnt,
  lzcnt,
  tzcnt,
  cmpxchg,
  cmpxchg8b,
  cmpxchg16b,
  xadd,
  crc32,
  adcx,
  adox,
  andn,
  bextr,
  blsi,
  blsmsk,
  blsr,
  bzhi,
  mulx,
  pdep,
  pext,
  rorx,
  sarx,
  shlx,
  shrx,
  daa,
  das,
  aaa,
  aas,
  aam,
  aad,
  salc,
  clc,
  stc,
  cmc,
  cld,
  std,
  rdrand,
  rdseed,
  // Control flow
  jcc,
  jmp,
  jmp_indirect,
  jmp_far,
  jmp_far_indirect,
  call,
  call_indirect,
  call_far,
  call_far_indirect,
  ret,
  ret_far,
  loop,
  loope,
  loopne,
  jcxz,
  int_,
  int3,
  int1,
  into,
  iret,
  bound,
  syscall,
  sysret,
  sysenter,
  sysexit,
  ud,
  // Strings
  movs,
  cmps,
  scas,
  lods,
  stos,
  ins,
  outs,
  // I/O and system
  in,
  out,
  cli,
  sti,
  hlt,
  lgdt,
  lidt,
  lldt,
  ltr,
  sgdt,
  sidt,
  sldt,
  str,
  lmsw,
  smsw,
  clts,
  mov_from_cr,
  mov_to_cr,
  mov_from_dr,
  mov_to_dr,
  invlpg,
  invpcid,
  invd,
  wbinvd,
  rdmsr,
  wrmsr,
  rdtsc,
  rdtscp,
  rdpmc,
  rdpid,
  cpuid,
  swapgs,
  lar,
  lsl,
  verr,
  verw,
  arpl,
  stac,
  clac,
  monitor,
  mwait,
  pause,
  vmcall,
  vmmcall,
  xgetbv,
  xsetbv,
  rdfsbase,
  rdgsbase,
  wrfsbase,
  wrgsbase,
  rdpkru,
  wrpkru,
  rsm,
  // State and fences
  fxsave,
  fxrstor,
  xsave,
  xsaveopt,
  xsavec,
  xsaves,
  xrstor,
  xrstors,
  ldmxcsr,
  stmxcsr,
  fwait,
  emms,
  lfence,
  mfence,
  sfence,
  clflush,
  prefetch,
  nop,
  // Vector accesses with several or conditional memory parts
  maskmov,
  gather,
  scatter,
  vmaskmov,
  compress,
  expand,
  native,
  kCount,
};

/// Which part of the translator and of the interpreter is responsible.
enum class OpClass : std::uint8_t { integer, branch, string, system, io, native };

/// Attributes of a row.
namespace attribute {
inline constexpr std::uint32_t
    lockable = 1 << 0,    ///< LOCK allowed (with a memory destination)
    default64 = 1 << 1,   ///< operand size 64 by default in 64-bit mode (push, near branches...)
    force64 = 1 << 2,     ///< operand size 64 always in 64-bit mode
    invalid64 = 1 << 3,   ///< #UD in 64-bit mode
    only64 = 1 << 4,      ///< #UD outside it
    memoryOnly = 1 << 5,  ///< mod == 3 is #UD
    registerOnly = 1 << 6,
    privileged = 1 << 7,  ///< #GP(0) when CPL != 0
    readsRm = 1 << 8,     ///< the E/W operand is read
    writesRm = 1 << 9,
    readsReg = 1 << 10,  ///< the G/V operand is read
    writesReg = 1 << 11,
    regIsGpr = 1 << 12,   ///< for class native: the reg field names a general register (MOVD, CVTSS2SI, PEXTRW...)
    rmIsGpr = 1 << 13,    ///< for class native: a register rm is a general register
    vvvvIsGpr = 1 << 14,  ///< for class native: VEX.vvvv names a general register
    x87 = 1 << 15, mmx = 1 << 16, sse = 1 << 17, avx = 1 << 18,  ///< which state and CR0/CR4/XCR0 checks (#NM, #UD)
    alignedMemory = 1 << 19,  ///< memory must be aligned to its size (legacy SSE 16-byte forms, MOVAPS...): #GP(0)
    implicitXmm0 = 1 << 20,
    implicitGprs = 1 << 21,  ///< PCMPxSTRx: reads RAX/RDX, writes RCX
    byteForm = 1 << 22,      ///< operands are bytes (Eb, Gb)
    readsFlags = 1 << 23,    ///< derived from flagsRead != 0
    vsib = 1 << 24,
    stackAccess = 1 << 25,        ///< implicit access at SS:rSP
    masked = 1 << 26,             ///< EVEX: takes an opmask
    zeroing = 1 << 27,            ///< EVEX: and may zero what it masks (not in memory)
    broadcasts = 1 << 28,         ///< EVEX: the memory operand may be one element
    rounds = 1 << 29,             ///< EVEX: register forms may suppress exceptions, some also choose the rounding
    avx512 = 1 << 30,             ///< state and XCR0 checks as for `avx`
    suppressesFaults = 1u << 31;  ///< EVEX: elements in memory that are masked are not accessed
}

/// CPUID features that gate an opcode (#UD when the CPU model lacks it).
enum class Feature : std::uint8_t {
  base,
  cmov,
  mmx,
  fxsr,
  sse,
  sse2,
  sse3,
  ssse3,
  sse41,
  sse42,
  popcnt,
  aes,
  pclmul,
  sha,
  avx,
  f16c,
  fma,
  avx2,
  bmi1,
  bmi2,
  lzcnt,
  movbe,
  adx,
  rdrand,
  rdseed,
  xsave,
  xsaveopt,
  xsavec,
  xsaves,
  fsgsbase,
  smap,
  invpcid,
  rdpid,
  rdtscp,
  cx8,
  cx16,
  syscall,
  clflush,
  clflushopt,
  clwb,
  monitor,
  pku,
  prefetchw,
  sse4a,
  vaes,
  vpclmul,
  gfni,
  avxvnni,
  avx512,  ///< F, CD, BW, DQ and VL: all of them or none are offered
  avx512ifma,
  avx512vbmi,
  avx512vbmi2,
  avx512vnni,
  avx512bitalg,
  avx512vpopcnt,
  avx512bf16,
  avx512vp2intersect,
  kCount,
};

/// Which explicit operands an instruction has, in the notation of SDM vol. 2, appendix A: E/M/R the r/m operand, G the
/// reg operand, B VEX.vvvv, I an immediate, Z the register in the opcode's low bits (Instruction::rm), A the
/// accumulator, O a moffs operand, J a relative branch target. Destination first.
enum class Form : std::uint8_t {
  none,
  e,
  g,
  e_g,
  g_e,
  e_i,
  e_1,
  e_c,
  e_g_i,
  e_g_c,
  g_e_i,
  a_i,
  z,
  z_i,
  a_z,
  a_o,
  o_a,
  i,
  i_i,
  far,
  j,
  e_s,
  s_e,   ///< segment register in the reg field
  sreg,  ///< PUSH/POP of the segment register in opcode bits 3..5
  r_c,
  c_r,  ///< MOV from and to a control or debug register: rm is the general register, reg the other one
  g_b_e,
  g_e_b,
  b_e,
  vector,  ///< anything with vector, MMX or x87 operands
};

/// Immediate bytes that follow.
enum class Immediate : std::uint8_t {
  none,
  byte,        ///< zero-extended
  byteSigned,  ///< sign-extended
  word,
  z,           ///< 2 bytes with operand size 2, else 4, sign-extended
  v,           ///< operand size (MOV r64, imm64)
  wordByte,    ///< ENTER: immediate is the word, immediate2 the byte
  farPointer,  ///< immediate is the offset (2 or 4 bytes), immediate2 the selector
  offset,      ///< moffs: address size bytes, in Instruction::displacement
  relative8,
  relativeZ,
};

/// Values of OpcodeInfo::memoryBytes that are not byte counts.
namespace memory_size {
inline constexpr std::uint8_t operand = 0,    ///< effective operand size
    vector = 255,                             ///< vector length (16 for legacy encodings)
    half = 254, quarter = 253, eighth = 252,  ///< of the vector length
    dwordOrQword = 251,                       ///< 8 with REX.W/VEX.W in 64-bit mode, else 4
    wordOrDword = 250,                        ///< 2 with operand size 2, else 4
    farPointer = 249,                         ///< offset of operand size and a selector
    tableRegister = 248,                      ///< limit and base: 10 bytes in 64-bit mode, else 6
    boundPair = 247,                          ///< two of operand size
    x87Environment = 246, x87State = 245,     ///< 14/28 and 94/108 bytes
    fxsaveArea = 244,                         ///< 512
    xsaveArea = 243,                          ///< depends on the mask in EDX:EAX; memoryOperand() says 0
    pairOfY = 242,                            ///< CMPXCHG8B/16B
    none = 241;                               ///< address only: LEA, INVLPG, hints
}

/// One opcode: one row, the only place where these facts stand. Decoder, interpreter, translator, test generator and
/// coverage report derive from it.
struct OpcodeInfo {
  Op op;
  OpClass cls;
  Feature feature;
  std::uint8_t memoryBytes;  ///< bytes, or a memory_size
  Form form;
  Immediate immediate;
  std::uint8_t elementBytes;  ///< EVEX: of an element of the memory operand
  /// RFLAGS bits (arithmetic ones and DF) whose old value can show in the result. That includes bits that may be left
  /// as they were (a shift whose count can be 0, REP CMPS with rCX 0): see flagEffects() for the exact answer.
  std::uint32_t flagsRead;
  std::uint32_t flagsWritten;    ///< bits that get a defined value
  std::uint32_t flagsUndefined;  ///< bits left undefined (also counted as written for liveness)
  std::uint32_t attributes;
  const char* mnemonic;  ///< lower case, for traces and tests
};

}  // namespace lodge::x86
