// SPDX-License-Identifier: Apache-2.0
#include "engine/engine.h"

namespace lodge {

Result<std::unique_ptr<Engine>> makeEngine(std::string_view name, const EngineSetup& setup) {
  if (name == "interpret") return makeInterpretEngine(setup);
#ifdef LODGE_HAVE_TRANSLATE
  if (name == "translate") return makeTranslateEngine(setup);
#endif
  return Error(ErrorKind::unsupported, "engine '" + std::string(name) + "'")
      .withHint("this version has translate and interpret");
}

}  // namespace lodge
