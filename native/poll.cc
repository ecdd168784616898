// Readiness of descriptors on Node's event loop.
#include <fcntl.h>
#include <unistd.h>
#include <uv.h>

#include <cerrno>

#include "call.h"

namespace moor {
namespace {

// Lives from poll_open until libuv calls `closed`, which frees it. The JavaScript side holds a bare pointer and forgets
// it in close(), so nothing reaches a freed one.
struct Poll {
  napi_env env;
  uv_poll_t handle;
  // A duplicate of the caller's descriptor. libuv watches a descriptor number once only (EEXIST), and a console's master
  // needs a reader and a writer; also the caller may close its own without pulling it from under epoll.
  int fd;
  int events;
  napi_ref callback;
  napi_async_context context;
  napi_async_cleanup_hook_handle cleanup;
};

// Runs when libuv has let go of the handle: the memory may be freed from here on (uv_close).
void closed(uv_handle_t* handle) {
  Poll* poll = static_cast<Poll*>(handle->data);
  napi_delete_reference(poll->env, poll->callback);
  napi_async_destroy(poll->env, poll->context);
  // Last: this lets an environment that is being torn down go on, and with it everything above goes away.
  napi_remove_async_cleanup_hook(poll->cleanup);
  delete poll;
}

void shut(Poll* poll) {
  uv_handle_t* handle = reinterpret_cast<uv_handle_t*>(&poll->handle);
  if (uv_is_closing(handle)) return;
  uv_close(handle, closed);
  // uv_close has already taken the descriptor out of epoll, so it may be closed before the callback (uv_poll).
  close(poll->fd);
}

void environment_ends(napi_async_cleanup_hook_handle, void* data) { shut(static_cast<Poll*>(data)); }

void ready(uv_poll_t* handle, int status, int) {
  Poll* poll = static_cast<Poll*>(handle->data);
  napi_env env = poll->env;
  // libuv turns EPOLLERR into a stopped handle and UV_EBADF, whatever the cause (a pipe whose reader left, a reset
  // socket). The cause is what the caller's next read or write says, and bytes may still be there to read: so the
  // callback is called as for any readiness, and polling goes on.
  if (status < 0) status = uv_poll_start(handle, poll->events, ready);

  napi_handle_scope scope;
  if (napi_open_handle_scope(env, &scope) != napi_ok) return;
  napi_value callback, receiver, argument;
  napi_get_reference_value(env, poll->callback, &callback);
  napi_get_global(env, &receiver);
  if (status < 0) {
    argument = system_error(env, -status, "uv_poll_start");
  } else {
    napi_get_undefined(env, &argument);
  }
  // make_callback also runs the microtasks and next ticks that the callback has queued.
  if (napi_make_callback(env, poll->context, receiver, callback, 1, &argument, nullptr) == napi_pending_exception) {
    napi_value error;
    napi_get_and_clear_last_exception(env, &error);
    napi_fatal_exception(env, error);
  }
  napi_close_handle_scope(env, scope);
}

napi_value poll_open(Call& call) {
  const int fd = call.integer(0);
  const bool writable = call.flag(1);
  napi_value callback = call.function(2);
  if (call.rejected()) return nullptr;
  napi_env env = call.env();
  uv_loop_t* loop;
  if (napi_get_uv_event_loop(env, &loop) != napi_ok) return call.fail_with(EINVAL, "uv_poll_init");

  const int own = fcntl(fd, F_DUPFD_CLOEXEC, 0);
  if (own < 0) return call.fail("fcntl");
  Poll* poll = new Poll{};
  poll->env = env;
  poll->fd = own;
  poll->events = writable ? UV_WRITABLE : UV_READABLE;
  poll->handle.data = poll;
  const int refused = uv_poll_init(loop, &poll->handle, own);
  if (refused < 0) {
    close(own);
    delete poll;
    return call.fail_with(-refused, "uv_poll_init");
  }
  napi_value name, external;
  napi_create_string_utf8(env, "moor.Poll", NAPI_AUTO_LENGTH, &name);
  napi_create_reference(env, callback, 1, &poll->callback);
  napi_async_init(env, nullptr, name, &poll->context);
  napi_add_async_cleanup_hook(env, environment_ends, poll, &poll->cleanup);
  const int started = uv_poll_start(&poll->handle, poll->events, ready);
  if (started < 0) {
    shut(poll);
    return call.fail_with(-started, "uv_poll_start");
  }
  napi_create_external(env, poll, nullptr, nullptr, &external);
  return external;
}

napi_value poll_close(Call& call) {
  Poll* poll = static_cast<Poll*>(call.external(0));
  if (call.rejected()) return nullptr;
  shut(poll);
  return nullptr;
}

napi_value poll_keep_alive(Call& call) {
  Poll* poll = static_cast<Poll*>(call.external(0));
  const bool on = call.flag(1);
  if (call.rejected()) return nullptr;
  uv_handle_t* handle = reinterpret_cast<uv_handle_t*>(&poll->handle);
  if (on) {
    uv_ref(handle);
  } else {
    uv_unref(handle);
  }
  return nullptr;
}

}  // namespace

void define_poll(napi_env env, napi_value exports) {
  define<poll_open>(env, exports, "pollOpen");
  define<poll_close>(env, exports, "pollClose");
  define<poll_keep_alive>(env, exports, "pollKeepAlive");
}

}  // namespace moor
