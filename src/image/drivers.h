// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "image/format.h"

namespace lodge::image {

// One row a format; the table is made of these in formats.cpp.
const FormatDriver& qcow2Driver();
const FormatDriver& rawDriver();
const FormatDriver& vdiDriver();
const FormatDriver& vhdDriver();
const FormatDriver& vhdxDriver();
const FormatDriver& vmdkDriver();

}  // namespace lodge::image
