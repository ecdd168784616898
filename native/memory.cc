// What malloc has and does not use.
#include <malloc.h>

#include "call.h"

namespace moor {
namespace {

napi_value trim_memory(Call& call) { return call.boolean(malloc_trim(0) != 0); }

}  // namespace

void define_memory(napi_env env, napi_value exports) { define<trim_memory>(env, exports, "trimMemory"); }

}  // namespace moor
