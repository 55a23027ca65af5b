// SPDX-License-Identifier: Apache-2.0
#include "base/error.h"

#include <cerrno>
#include <system_error>

namespace lodge {

std::string_view toString(ErrorKind kind) {
  switch (kind) {
    case ErrorKind::invalidArgument:
      return "invalid-argument";
    case ErrorKind::notFound:
      return "not-found";
    case ErrorKind::alreadyExists:
      return "already-exists";
    case ErrorKind::permissionDenied:
      return "permission-denied";
    case ErrorKind::busy:
      return "busy";
    case ErrorKind::corrupt:
      return "corrupt";
    case ErrorKind::unsupported:
      return "unsupported";
    case ErrorKind::io:
      return "io";
    case ErrorKind::outOfMemory:
      return "out-of-memory";
    case ErrorKind::interrupted:
      return "interrupted";
    case ErrorKind::internal:
      return "internal";
  }
  return "internal";
}

namespace {
ErrorKind kindOfErrno(int value) {
  switch (value) {
    case EINVAL:
    case ENOTDIR:
    case EISDIR:
    case ENAMETOOLONG:
      return ErrorKind::invalidArgument;
    case ENOENT:
    case ENXIO:
    case ENODEV:
      return ErrorKind::notFound;
    case EEXIST:
      return ErrorKind::alreadyExists;
    case EACCES:
    case EPERM:
    case EROFS:
      return ErrorKind::permissionDenied;
    case EBUSY:
    case EADDRINUSE:
    case ETXTBSY:
    case EWOULDBLOCK:
      return ErrorKind::busy;
    case ENOMEM:
      return ErrorKind::outOfMemory;
    case EINTR:
    case ECANCELED:
      return ErrorKind::interrupted;
    case ENOSYS:
    case EOPNOTSUPP:
      return ErrorKind::unsupported;
    default:
      return ErrorKind::io;
  }
}
}  // namespace

Error Error::fromErrno(int errnoValue, std::string what) {
  return Error(kindOfErrno(errnoValue), std::move(what) + ": " + std::generic_category().message(errnoValue));
}

}  // namespace lodge
