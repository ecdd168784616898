#include "call.h"

#include <cerrno>
#include <cmath>
#include <cstring>

namespace moor {

Call::Call(napi_env env, napi_callback_info info) : env_(env) {
  if (napi_get_cb_info(env, info, &count_, values_, nullptr, nullptr) != napi_ok) {
    count_ = 0;
  }
}

void Call::reject(size_t index, const char* expected) {
  if (rejected_) {
    return;
  }
  rejected_ = true;
  const std::string message = "argument " + std::to_string(index + 1) + " must be " + expected;
  napi_throw_type_error(env_, "ERR_INVALID_ARG_TYPE", message.c_str());
}

// N-API's own conversions turn NaN into 0 and wrap what is too large: a descriptor of NaN would be standard input.
double Call::whole(size_t index, double low, double high) {
  double value = 0;
  if (at(index) == nullptr || napi_get_value_double(env_, at(index), &value) != napi_ok || std::trunc(value) != value ||
      value < low || value > high) {
    reject(index, "a whole number in range");
    return 0;
  }
  return value;
}

int32_t Call::integer(size_t index) { return static_cast<int32_t>(whole(index, INT32_MIN, INT32_MAX)); }

int64_t Call::wide(size_t index) { return static_cast<int64_t>(whole(index, -9007199254740991.0, 9007199254740991.0)); }

uint16_t Call::half(size_t index) { return static_cast<uint16_t>(whole(index, 0, UINT16_MAX)); }

bool Call::flag(size_t index) {
  bool value = false;
  if (at(index) == nullptr || napi_get_value_bool(env_, at(index), &value) != napi_ok) {
    reject(index, "a boolean");
  }
  return value;
}

// The kernel would read a string with a NUL in it as a shorter one, so that another path is checked than is used.
std::string Call::text(size_t index) {
  std::string value;
  if (!read_text(at(index), &value)) reject(index, "a string without null bytes");
  return value;
}

std::vector<std::string> Call::texts(size_t index) {
  uint32_t length = 0;
  bool is_array = false;
  if (at(index) != nullptr) napi_is_array(env_, at(index), &is_array);
  if (is_array) napi_get_array_length(env_, at(index), &length);
  std::vector<std::string> values(length);
  bool is_good = is_array;
  for (uint32_t place = 0; is_good && place < length; place++) {
    napi_value value = nullptr;
    is_good = napi_get_element(env_, at(index), place, &value) == napi_ok && read_text(value, &values[place]);
  }
  if (!is_good) reject(index, "an array of strings without null bytes");
  return values;
}

bool Call::read_text(napi_value value, std::string* text) {
  size_t length = 0;
  if (value == nullptr || napi_get_value_string_utf8(env_, value, nullptr, 0, &length) != napi_ok) return false;
  text->assign(length, '\0');
  napi_get_value_string_utf8(env_, value, &(*text)[0], length + 1, &length);
  return text->find('\0') == std::string::npos;
}

std::string Call::bytes(size_t index) {
  size_t length = 0;
  if (at(index) == nullptr || napi_get_value_string_latin1(env_, at(index), nullptr, 0, &length) != napi_ok) {
    reject(index, "a string of bytes");
    return "";
  }
  std::string value(length, '\0');
  napi_get_value_string_latin1(env_, at(index), &value[0], length + 1, &length);
  if (value.find('\0') != std::string::npos) {
    reject(index, "a string without null bytes");
    return "";
  }
  return value;
}

void* Call::typed(size_t index, napi_typedarray_type expected, size_t* size) {
  bool is_typed = false;
  napi_typedarray_type type = napi_int8_array;
  void* data = nullptr;
  if (at(index) == nullptr || napi_is_typedarray(env_, at(index), &is_typed) != napi_ok || !is_typed ||
      napi_get_typedarray_info(env_, at(index), &type, size, &data, nullptr, nullptr) != napi_ok || type != expected) {
    reject(index, expected == napi_uint8_array ? "a Uint8Array" : "a Float64Array");
    *size = 0;
    return nullptr;
  }
  return data;
}

Span<uint8_t> Call::octets(size_t index) {
  Span<uint8_t> span;
  span.data = static_cast<uint8_t*>(typed(index, napi_uint8_array, &span.size));
  return span;
}

Span<double> Call::numbers(size_t index) {
  Span<double> span;
  span.data = static_cast<double*>(typed(index, napi_float64_array, &span.size));
  return span;
}

napi_value Call::function(size_t index) {
  napi_valuetype type = napi_undefined;
  if (at(index) == nullptr || napi_typeof(env_, at(index), &type) != napi_ok || type != napi_function) {
    reject(index, "a function");
    return nullptr;
  }
  return at(index);
}

void* Call::external(size_t index) {
  void* value = nullptr;
  if (at(index) == nullptr || napi_get_value_external(env_, at(index), &value) != napi_ok || value == nullptr) {
    reject(index, "a handle of this addon");
  }
  return value;
}

napi_value Call::fail(const char* syscall, const std::string& subject) const {
  return fail_with(errno, syscall, subject);
}

napi_value Call::fail_with(int number, const char* syscall, const std::string& subject) const {
  napi_throw(env_, system_error(env_, number, syscall, subject));
  return nullptr;
}

napi_value Call::number(double value) const {
  napi_value result = nullptr;
  napi_create_double(env_, value, &result);
  return result;
}

napi_value Call::boolean(bool value) const {
  napi_value result = nullptr;
  napi_get_boolean(env_, value, &result);
  return result;
}

napi_value Call::pair(const char* first_name, double first, const char* second_name, double second) const {
  napi_value result = nullptr;
  napi_create_object(env_, &result);
  napi_set_named_property(env_, result, first_name, number(first));
  napi_set_named_property(env_, result, second_name, number(second));
  return result;
}

napi_value system_error(napi_env env, int number, const char* syscall, const std::string& subject) {
  // libuv's table of names lacks ECHILD, EBADMSG and others; glibc (2.32 and later) has them all.
  const char* name = strerrorname_np(number);
  const char* description = strerrordesc_np(number);
  const std::string code = name != nullptr ? name : "E" + std::to_string(number);
  std::string message = syscall;
  if (!subject.empty()) {
    message += " " + subject;
  }
  message += ": " + code + ": " + (description != nullptr ? description : "Unknown error");

  napi_value code_value, message_value, errno_value, syscall_value, error;
  napi_create_string_utf8(env, code.c_str(), code.size(), &code_value);
  napi_create_string_utf8(env, message.c_str(), message.size(), &message_value);
  napi_create_int32(env, -number, &errno_value);
  napi_create_string_utf8(env, syscall, NAPI_AUTO_LENGTH, &syscall_value);
  napi_create_error(env, code_value, message_value, &error);
  napi_set_named_property(env, error, "errno", errno_value);
  napi_set_named_property(env, error, "syscall", syscall_value);
  return error;
}

}  // namespace moor
