#include <node_api.h>

#include "call.h"

NAPI_MODULE_INIT() {
  moor::define_process(env, exports);
  moor::define_memory(env, exports);
  moor::define_descriptor(env, exports);
  moor::define_poll(env, exports);
  moor::define_socket(env, exports);
  moor::define_terminal(env, exports);
  moor::define_mount(env, exports);
  moor::define_fork(env, exports);
  moor::define_spawn(env, exports);
  moor::define_sealed(env, exports);
  moor::define_cgroup_move(env, exports);
  moor::define_attribute(env, exports);
  moor::define_confinement(env, exports);
  moor::define_tree(env, exports);
  moor::define_copy(env, exports);
  moor::define_subvolume(env, exports);
  return exports;
}
