// SPDX-License-Identifier: Apache-2.0
#include "engine/choose.h"

#include "base/text.h"
#include "engine/kvm/probe_cache.h"

namespace lodge {

namespace {

constexpr const char* kNoKvmEngine = "this version has no KVM engine";

Result<EngineChoice> chooseKvm(EnginesBuilt built, const std::function<kvm::ProbeResult()>& probe) {
  constexpr const char* kHint = "use --engine translate, which needs nothing of the host, or leave --engine out";
  if (!built.kvm) return Error(ErrorKind::unsupported, std::string("--engine kvm: ") + kNoKvmEngine).withHint(kHint);
  kvm::ProbeResult result = probe();
  if (!result.usable) return Error(ErrorKind::unsupported, "--engine kvm: " + result.reason).withHint(kHint);
  return EngineChoice{"kvm", "it was asked for"};
}

EngineChoice chooseBest(EnginesBuilt built, const std::function<kvm::ProbeResult()>& probe) {
  std::string whyNotKvm = kNoKvmEngine;
  if (built.kvm) {
    kvm::ProbeResult result = probe();
    if (result.usable) return {"kvm", result.reason};
    whyNotKvm = result.reason;
  }
  if (built.translate) return {"translate", whyNotKvm};
  return {"interpret", whyNotKvm + ", nor a translator"};
}

}  // namespace

EnginesBuilt enginesBuilt() {
#ifdef LODGE_HAVE_TRANSLATE
  return {.translate = true, .kvm = true};
#else
  return {.translate = false, .kvm = true};
#endif
}

Result<EngineChoice> chooseEngine(std::string_view requested, EnginesBuilt built,
                                  const std::function<kvm::ProbeResult()>& probe) {
  if (requested == "auto") return chooseBest(built, probe);
  if (requested == "kvm") return chooseKvm(built, probe);
  if (requested == "translate" && !built.translate) {
    return Error(ErrorKind::unsupported, "--engine translate: this version has no translator")
        .withHint("use --engine interpret");
  }
  if (requested == "translate" || requested == "interpret")
    return EngineChoice{std::string(requested), "it was asked for"};
  return Error(ErrorKind::notFound, "there is no engine " + inQuotes(requested))
      .withHint("use auto, translate, interpret or kvm");
}

Result<EngineChoice> chooseEngine(std::string_view requested) {
  return chooseEngine(requested, enginesBuilt(),
                      [] { return kvm::ProbeCache::ofHost().get([] { return kvm::probe(); }); });
}

}  // namespace lodge
