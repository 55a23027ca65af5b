// SPDX-License-Identifier: Apache-2.0
// Rows of EVEX instructions of map 0F3A (SDM vol. 2; notation: opcode_evex.h). Internal, see opcode_row.h.
#pragma once

#include "x86/opcode_evex.h"

namespace lodge::x86::table {

// clang-format off
inline constexpr EvexLine kEvex0f3a[] = {
  {0x00, p66, 1, 6, "vpermq", "=Vx Wx Ib", 8, "zb"}, {0x01, p66, 1, 6, "vpermpd", "=Vx Wx Ib", 8, "zb"},
  {0x03, p66, 0, 7, "valignd", "=Vx Hx Wx Ib", 4, "zb"}, {0x03, p66, 1, 7, "valignq", "=Vx Hx Wx Ib", 8, "zb"},
  {0x04, p66, 0, 7, "vpermilps", "=Vx Wx Ib", 4, "zb"}, {0x05, p66, 1, 7, "vpermilpd", "=Vx Wx Ib", 8, "zb"},
  {0x08, p66, 0, 7, "vrndscaleps", "=Vx Wx Ib", 4, "zfbr"}, {0x09, p66, 1, 7, "vrndscalepd", "=Vx Wx Ib", 8, "zfbr"},
  {0x0a, p66, 0, 7, "vrndscaless", "=Vx Hx Wd Ib", 4, "zfr"},
  {0x0b, p66, 1, 7, "vrndscalesd", "=Vx Hx Wq Ib", 8, "zfr"}, {0x0f, p66, 2, 7, "vpalignr", "=Vx Hx Wx Ib", 1, "z"},
  {0x14, p66, 2, 1, "vpextrb", "=Eb Vx Ib", 1, ""}, {0x15, p66, 2, 1, "vpextrw", "=Ew Vx Ib", 2, ""},
  {0x16, p66, 2, 1, "vpextrd", "=Ey Vx Ib", 4, ""},
  {0x17, p66, 2, 1, "vextractps", "=Ed Vx Ib", 4, ""}, {0x18, p66, 0, 6, "vinsertf32x4", "=Vx Hx Wdq Ib", 4, "z"},
  {0x18, p66, 1, 6, "vinsertf64x2", "=Vx Hx Wdq Ib", 8, "z"}, {0x19, p66, 0, 6, "vextractf32x4", "=Wdq Vx Ib", 4, "z"},
  {0x19, p66, 1, 6, "vextractf64x2", "=Wdq Vx Ib", 8, "z"}, {0x1a, p66, 0, 4, "vinsertf32x8", "=Vx Hx Wh Ib", 4, "z"},
  {0x1a, p66, 1, 4, "vinsertf64x4", "=Vx Hx Wh Ib", 8, "z"}, {0x1b, p66, 0, 4, "vextractf32x8", "=Wh Vx Ib", 4, "z"},
  {0x1b, p66, 1, 4, "vextractf64x4", "=Wh Vx Ib", 8, "z"}, {0x1d, p66, 0, 7, "vcvtps2ph", "=Wh Vx Ib", 2, "zfr"},
  {0x1e, p66, 0, 7, "vpcmpud", "=k Hx Wx Ib", 4, "kfb"}, {0x1e, p66, 1, 7, "vpcmpuq", "=k Hx Wx Ib", 8, "kfb"},
  {0x1f, p66, 0, 7, "vpcmpd", "=k Hx Wx Ib", 4, "kfb"}, {0x1f, p66, 1, 7, "vpcmpq", "=k Hx Wx Ib", 8, "kfb"},
  {0x20, p66, 2, 1, "vpinsrb", "=Vx Hx Eb Ib", 1, ""}, {0x21, p66, 0, 1, "vinsertps", "=Vx Hx Wf Ib", 4, ""},
  {0x22, p66, 2, 1, "vpinsrd", "=Vx Hx Ey Ib", 4, ""},
  {0x23, p66, 0, 6, "vshuff32x4", "=Vx Hx Wx Ib", 4, "zb"}, {0x23, p66, 1, 6, "vshuff64x2", "=Vx Hx Wx Ib", 8, "zb"},
  {0x25, p66, 0, 7, "vpternlogd", "+Vx Hx Wx Ib", 4, "zfb"}, {0x25, p66, 1, 7, "vpternlogq", "+Vx Hx Wx Ib", 8, "zfb"},
  {0x26, p66, 0, 7, "vgetmantps", "=Vx Wx Ib", 4, "zfbr"}, {0x26, p66, 1, 7, "vgetmantpd", "=Vx Wx Ib", 8, "zfbr"},
  {0x27, p66, 0, 7, "vgetmantss", "=Vx Hx Wd Ib", 4, "zfr"}, {0x27, p66, 1, 7, "vgetmantsd", "=Vx Hx Wq Ib", 8, "zfr"},
  {0x38, p66, 0, 6, "vinserti32x4", "=Vx Hx Wdq Ib", 4, "z"},
  {0x38, p66, 1, 6, "vinserti64x2", "=Vx Hx Wdq Ib", 8, "z"}, {0x39, p66, 0, 6, "vextracti32x4", "=Wdq Vx Ib", 4, "z"},
  {0x39, p66, 1, 6, "vextracti64x2", "=Wdq Vx Ib", 8, "z"}, {0x3a, p66, 0, 4, "vinserti32x8", "=Vx Hx Wh Ib", 4, "z"},
  {0x3a, p66, 1, 4, "vinserti64x4", "=Vx Hx Wh Ib", 8, "z"}, {0x3b, p66, 0, 4, "vextracti32x8", "=Wh Vx Ib", 4, "z"},
  {0x3b, p66, 1, 4, "vextracti64x4", "=Wh Vx Ib", 8, "z"}, {0x3e, p66, 0, 7, "vpcmpub", "=k Hx Wx Ib", 1, "kf"},
  {0x3e, p66, 1, 7, "vpcmpuw", "=k Hx Wx Ib", 2, "kf"}, {0x3f, p66, 0, 7, "vpcmpb", "=k Hx Wx Ib", 1, "kf"},
  {0x3f, p66, 1, 7, "vpcmpw", "=k Hx Wx Ib", 2, "kf"}, {0x42, p66, 0, 7, "vdbpsadbw", "=Vx Hx Wx Ib", 1, "z"},
  {0x43, p66, 0, 6, "vshufi32x4", "=Vx Hx Wx Ib", 4, "zb"}, {0x43, p66, 1, 6, "vshufi64x2", "=Vx Hx Wx Ib", 8, "zb"},
  {0x44, p66, 2, 7, "vpclmulqdq", "=Vx Hx Wx Ib", 8, "", vpclmul},
  {0x50, p66, 0, 7, "vrangeps", "=Vx Hx Wx Ib", 4, "zfbr"}, {0x50, p66, 1, 7, "vrangepd", "=Vx Hx Wx Ib", 8, "zfbr"},
  {0x51, p66, 0, 7, "vrangess", "=Vx Hx Wd Ib", 4, "zfr"}, {0x51, p66, 1, 7, "vrangesd", "=Vx Hx Wq Ib", 8, "zfr"},
  {0x54, p66, 0, 7, "vfixupimmps", "+Vx Hx Wx Ib", 4, "zfbr"},
  {0x54, p66, 1, 7, "vfixupimmpd", "+Vx Hx Wx Ib", 8, "zfbr"},
  {0x55, p66, 0, 7, "vfixupimmss", "+Vx Hx Wd Ib", 4, "zfr"},
  {0x55, p66, 1, 7, "vfixupimmsd", "+Vx Hx Wq Ib", 8, "zfr"}, {0x56, p66, 0, 7, "vreduceps", "=Vx Wx Ib", 4, "zfbr"},
  {0x56, p66, 1, 7, "vreducepd", "=Vx Wx Ib", 8, "zfbr"}, {0x57, p66, 0, 7, "vreducess", "=Vx Hx Wd Ib", 4, "zfr"},
  {0x57, p66, 1, 7, "vreducesd", "=Vx Hx Wq Ib", 8, "zfr"}, {0x66, p66, 0, 7, "vfpclassps", "=k Wx Ib", 4, "kfb"},
  {0x66, p66, 1, 7, "vfpclasspd", "=k Wx Ib", 8, "kfb"}, {0x67, p66, 0, 7, "vfpclassss", "=k Wd Ib", 4, "kf"},
  {0x67, p66, 1, 7, "vfpclasssd", "=k Wq Ib", 8, "kf"},
  {0x70, p66, 1, 7, "vpshldw", "=Vx Hx Wx Ib", 2, "zf", avx512vbmi2},
  {0x71, p66, 0, 7, "vpshldd", "=Vx Hx Wx Ib", 4, "zfb", avx512vbmi2},
  {0x71, p66, 1, 7, "vpshldq", "=Vx Hx Wx Ib", 8, "zfb", avx512vbmi2},
  {0x72, p66, 1, 7, "vpshrdw", "=Vx Hx Wx Ib", 2, "zf", avx512vbmi2},
  {0x73, p66, 0, 7, "vpshrdd", "=Vx Hx Wx Ib", 4, "zfb", avx512vbmi2},
  {0x73, p66, 1, 7, "vpshrdq", "=Vx Hx Wx Ib", 8, "zfb", avx512vbmi2},
  {0xce, p66, 1, 7, "vgf2p8affineqb", "=Vx Hx Wx Ib", 8, "zb", gfni},
  {0xcf, p66, 1, 7, "vgf2p8affineinvqb", "=Vx Hx Wx Ib", 8, "zb", gfni},
};
// clang-format on

}  // namespace lodge::x86::table
