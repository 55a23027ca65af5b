// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/file.h"
#include "image/block_file.h"

namespace lodge::image {

/// A disk that an NBD server exports, as a file. `address`: see nbd::parseAddress(). Requests of several threads are in
/// flight at once. Errors: invalidArgument, notFound (server, export), permissionDenied (read-only export), io.
Result<std::shared_ptr<BlockFile>> openNbd(const std::string& address, bool readOnly);
/// The same over a stream socket that is connected already. `name`: what messages call it.
Result<std::shared_ptr<BlockFile>> openNbd(UniqueFd socket, const std::string& exportName, const std::string& name,
                                           bool readOnly);

/// The one that is open in this process under that address, null if none is: many servers take one client at a time.
/// Any thread.
std::shared_ptr<BlockFile> openedNbd(const std::string& address);

/// Whether the servers answer of which this process wants something now. Waits for each as image/patience.h has it. An
/// error names the disk. Any thread.
Status busyNbdServersAnswer();
/// A network disk that this process has open and of whose server it wants something now, if only what was given up;
/// "": none. Any thread.
std::string busyNbd();

}  // namespace lodge::image
