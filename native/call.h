// One call from JavaScript: its arguments in, its value or its error out.
#pragma once

#include <node_api.h>

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace moor {

template <typename T>
struct Span {
  T* data = nullptr;
  size_t size = 0;
};

class Call {
 public:
  Call(napi_env env, napi_callback_info info);

  napi_env env() const { return env_; }

  // Each reads one argument. What does not fit leaves a TypeError pending and makes rejected() true; the value returned
  // then is harmless but meaningless.
  int32_t integer(size_t index);
  int64_t wide(size_t index);
  uint16_t half(size_t index);
  bool flag(size_t index);
  std::string text(size_t index);
  std::vector<std::string> texts(size_t index);
  napi_value function(size_t index);
  void* external(size_t index);
  // A string of bytes, one character each ('latin1'): the kernel's own idea of a name.
  std::string bytes(size_t index);
  // The memory of a Uint8Array or a Float64Array, JavaScript's own: valid during this call only.
  Span<uint8_t> octets(size_t index);
  Span<double> numbers(size_t index);

  // The argument as it is; null when it is missing.
  napi_value value(size_t index) const { return at(index); }

  // True when an argument was refused: return nullptr at once, an exception is pending.
  bool rejected() const { return rejected_; }

  // Throws for the current errno. The message reads `mount /x: EBUSY: Device or resource busy`.
  napi_value fail(const char* syscall, const std::string& subject = "") const;
  // The same with an explicit error number (positive).
  napi_value fail_with(int number, const char* syscall, const std::string& subject = "") const;

  napi_value number(double value) const;
  napi_value boolean(bool value) const;
  // An object of two numbers, the shape of every pair the addon returns.
  napi_value pair(const char* first_name, double first, const char* second_name, double second) const;

 private:
  napi_value at(size_t index) const { return index < count_ ? values_[index] : nullptr; }
  bool read_text(napi_value value, std::string* text);
  double whole(size_t index, double low, double high);
  void reject(size_t index, const char* expected);
  void* typed(size_t index, napi_typedarray_type expected, size_t* size);

  static constexpr size_t kMost = 6;
  napi_env env_;
  size_t count_ = kMost;
  napi_value values_[kMost] = {};
  bool rejected_ = false;
};

// An Error with `code` (the errno's name), `errno` (negative, as Node's own system errors have it) and `syscall`.
napi_value system_error(napi_env env, int number, const char* syscall, const std::string& subject = "");

using Handler = napi_value (*)(Call& call);

template <Handler handler>
napi_value enter(napi_env env, napi_callback_info info) {
  Call call(env, info);
  return handler(call);
}

template <Handler handler>
void define(napi_env env, napi_value exports, const char* name) {
  napi_value function;
  if (napi_create_function(env, name, NAPI_AUTO_LENGTH, enter<handler>, nullptr, &function) == napi_ok) {
    napi_set_named_property(env, exports, name, function);
  }
}

// One per source file: adds that file's functions to the addon's exports.
void define_process(napi_env env, napi_value exports);
void define_memory(napi_env env, napi_value exports);
void define_descriptor(napi_env env, napi_value exports);
void define_poll(napi_env env, napi_value exports);
void define_socket(napi_env env, napi_value exports);
void define_terminal(napi_env env, napi_value exports);
void define_mount(napi_env env, napi_value exports);
void define_fork(napi_env env, napi_value exports);
void define_spawn(napi_env env, napi_value exports);
void define_sealed(napi_env env, napi_value exports);
void define_cgroup_move(napi_env env, napi_value exports);
void define_attribute(napi_env env, napi_value exports);
void define_confinement(napi_env env, napi_value exports);
void define_tree(napi_env env, napi_value exports);
void define_copy(napi_env env, napi_value exports);
void define_subvolume(napi_env env, napi_value exports);

}  // namespace moor
