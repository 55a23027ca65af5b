// SPDX-License-Identifier: Apache-2.0
#include "image/qcow2_codec.h"

#include <libdeflate.h>
#include <zstd.h>

#include <cerrno>
#include <memory>
#include <utility>

#include "image/randomness.h"

namespace lodge::image::qcow2 {

namespace {

template <auto Free>
struct Deleter {
  template <class T>
  void operator()(T* p) const {
    Free(p);
  }
};

/// Level 5 makes less of it than zlib's usual 6 within its 4 KiB window, in a third of the time.
constexpr int kDeflateLevel = 5;

// Contexts are large, so each thread keeps its own.
libdeflate_decompressor* inflater() {
  thread_local std::unique_ptr<libdeflate_decompressor, Deleter<libdeflate_free_decompressor>> own(
      libdeflate_alloc_decompressor());
  return own.get();
}
libdeflate_compressor* deflater() {
  thread_local std::unique_ptr<libdeflate_compressor, Deleter<libdeflate_free_compressor>> own(
      libdeflate_alloc_compressor(kDeflateLevel));
  return own.get();
}
ZSTD_DCtx* zstdReader() {
  thread_local std::unique_ptr<ZSTD_DCtx, Deleter<ZSTD_freeDCtx>> own(ZSTD_createDCtx());
  return own.get();
}
/// Level 1 with a table that the processor's first cache holds beside the cluster: a tenth to a third faster, and
/// hardly any larger.
ZSTD_CCtx* makeZstdWriter() {
  ZSTD_CCtx* context = ZSTD_createCCtx();
  constexpr std::pair<ZSTD_cParameter, int> kSettings[] = {
      {ZSTD_c_compressionLevel, 1}, {ZSTD_c_strategy, ZSTD_fast}, {ZSTD_c_minMatch, 5}, {ZSTD_c_hashLog, 11}};
  for (auto [name, value] : kSettings) {
    if (context) ZSTD_CCtx_setParameter(context, name, value);
  }
  return context;
}
ZSTD_CCtx* zstdWriter() {
  thread_local std::unique_ptr<ZSTD_CCtx, Deleter<ZSTD_freeCCtx>> own(makeZstdWriter());
  return own.get();
}

/// What follows the frame is the rest of the sector, so the frame's end has to be found while decoding.
int unzstd(std::span<const std::byte> stored, std::span<std::byte> cluster) {
  ZSTD_DCtx* context = zstdReader();
  if (!context) return ENOMEM;
  ZSTD_DCtx_reset(context, ZSTD_reset_session_only);
  ZSTD_inBuffer in{stored.data(), stored.size(), 0};
  ZSTD_outBuffer out{cluster.data(), cluster.size(), 0};
  while (out.pos < out.size) {
    std::size_t before = in.pos, had = out.pos;
    std::size_t left = ZSTD_decompressStream(context, &out, &in);
    if (ZSTD_isError(left) || (in.pos == before && out.pos == had)) return EIO;
  }
  return 0;
}

}  // namespace

int decompress(Compression type, std::span<const std::byte> stored, std::span<std::byte> cluster) {
  if (type == Compression::zstd) return unzstd(stored, cluster);
  libdeflate_decompressor* context = inflater();
  if (!context) return ENOMEM;
  std::size_t used = 0, made = 0;
  auto result = libdeflate_deflate_decompress_ex(context, stored.data(), stored.size(), cluster.data(), cluster.size(),
                                                 &used, &made);
  return result == LIBDEFLATE_SUCCESS && made == cluster.size() ? 0 : EIO;
}

int compress(Compression type, std::span<const std::byte> cluster, std::vector<std::byte>& stored) {
  // zstd finds out by itself as fast.
  if (type == Compression::deflate && looksRandom(cluster)) {
    stored.clear();
    return 0;
  }
  stored.resize(cluster.size());
  std::size_t limit = cluster.size() - 1, made = 0;
  if (type == Compression::zstd) {
    ZSTD_CCtx* context = zstdWriter();
    if (!context) return ENOMEM;
    made = ZSTD_compress2(context, stored.data(), limit, cluster.data(), cluster.size());
    if (ZSTD_isError(made)) made = 0;  // does not fit: not worth it
  } else {
    libdeflate_compressor* context = deflater();
    if (!context) return ENOMEM;
    made = libdeflate_deflate_compress(context, cluster.data(), cluster.size(), stored.data(), limit);
  }
  stored.resize(made);
  return 0;
}

}  // namespace lodge::image::qcow2
