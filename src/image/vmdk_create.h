// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "image/format.h"

namespace lodge::image::vmdk {

/// FormatDriver::create of VMDK.
Status createVmdk(const CreateRequest& request);

}  // namespace lodge::image::vmdk
