// SPDX-License-Identifier: Apache-2.0
#include "net/slirp_library.h"

#include <dlfcn.h>

#include <cerrno>
#include <string>

namespace lodge {

#ifdef LODGE_STATIC

namespace {

/// What went wrong, or nothing.
std::string load(SlirpLibrary& library) {
  void* handle = ::dlopen("libslirp.so.0", RTLD_NOW | RTLD_LOCAL);
  if (!handle) return ::dlerror();
  std::string missing;
  auto find = [&](auto& function, const char* name) {
    void* address = ::dlsym(handle, name);
    if (!address) missing = std::string("libslirp.so.0 has no ") + name;
    function = reinterpret_cast<std::remove_reference_t<decltype(function)>>(address);
  };
  find(library.make, "slirp_new");
  find(library.cleanup, "slirp_cleanup");
  find(library.fill, "slirp_pollfds_fill");
  find(library.poll, "slirp_pollfds_poll");
  find(library.input, "slirp_input");
  find(library.handleTimer, "slirp_handle_timer");
  find(library.addForward, "slirp_add_hostxfwd");
  find(library.removeForward, "slirp_remove_hostxfwd");
  find(library.errorPlace, "__errno_location");
  return missing;
}

}  // namespace

Result<const SlirpLibrary*> slirpLibrary() {
  static SlirpLibrary library;
  static const std::string failure = load(library);
  if (failure.empty()) return &library;
  return Error(ErrorKind::notFound, failure)
      .withHint("install libslirp0 of the system that this program was made on, or choose another kind of network");
}

#else

Result<const SlirpLibrary*> slirpLibrary() {
  static const SlirpLibrary library{&slirp_new,          &slirp_cleanup,         &slirp_pollfds_fill,
                                    &slirp_pollfds_poll, &slirp_input,           &slirp_handle_timer,
                                    &slirp_add_hostxfwd, &slirp_remove_hostxfwd, [] { return &errno; }};
  return &library;
}

#endif

}  // namespace lodge
