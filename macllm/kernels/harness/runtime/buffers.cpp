#include "buffers.h"

#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "sanitizers.h"

namespace harness {

namespace {

const std::vector<Buffer>* watched = nullptr;

size_t page() {
  static const size_t bytes = size_t(sysconf(_SC_PAGESIZE));
  return bytes;
}

// Wide, for touches far off: a row too many may be megabytes on. The others keep books of every byte mapped.
#if defined(HARNESS_THREAD) || defined(HARNESS_MEMORY)
size_t guard() { return page(); }
#else
size_t guard() { return size_t(64) << 20; }
#endif

[[noreturn]] void stop(const char* text) {
  const ssize_t ignored = write(2, text, strlen(text));
  (void)ignored;
  _exit(3);
}

// Only what a signal handler may call, but for snprintf, which the C libraries at hand allow.
void on_fault(int, siginfo_t* info, void*) {
  const char* address = (const char*)info->si_addr;
  char text[400];
  for (const Buffer& buffer : *watched) {
    if (address < buffer.mapped || address >= buffer.mapped + buffer.mapped_bytes) continue;
    if (address < buffer.place) {
      snprintf(text, sizeof text, "harness: out of bounds: '%s' is touched %td bytes before its start\n",
               buffer.name.c_str(), buffer.place - address);
    } else if (address >= buffer.place + buffer.bytes) {
      snprintf(text, sizeof text, "harness: out of bounds: '%s' is touched %td bytes past its end\n",
               buffer.name.c_str(), address - (buffer.place + buffer.bytes));
    } else {
      snprintf(text, sizeof text, "harness: the input '%s' is written\n", buffer.name.c_str());
    }
    stop(text);
  }
  snprintf(text, sizeof text, "harness: out of bounds: address %p, of no buffer\n", info->si_addr);
  stop(text);
}

bool slack_is_whole(const char* from, const char* to, unsigned char fill) {
  return std::all_of(from, to, [=](char byte) { return (unsigned char)byte == fill; });
}

}  // namespace

void place_buffers(std::vector<Buffer>& buffers, Side side, unsigned char fill) {
  for (Buffer& buffer : buffers) {
    const size_t inner = std::max<size_t>(1, (buffer.bytes + page() - 1) / page()) * page();
    buffer.mapped_bytes = inner + 2 * guard();
    buffer.mapped = (char*)mmap(nullptr, buffer.mapped_bytes, PROT_NONE,
                                MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (buffer.mapped == MAP_FAILED) abort();
    char* first = buffer.mapped + guard();
    mprotect(first, inner, PROT_READ | PROT_WRITE);
    buffer.place = side == Side::start ? first : first + inner - buffer.bytes;
    memset(first, fill, inner);
    if (!buffer.output && buffer.bytes) memcpy(buffer.place, buffer.contents.data(), buffer.bytes);
    mark_initialised(first, inner);
    char* end = buffer.place + buffer.bytes;
    if (buffer.output) mark_uninitialised(buffer.place, buffer.bytes);
    mark_uninitialised(first, size_t(buffer.place - first));
    mark_uninitialised(end, size_t(first + inner - end));
    forbid(first, size_t(buffer.place - first));
    forbid(end, size_t(first + inner - end));
    if (!buffer.output) mprotect(first, inner, PROT_READ);
  }
}

void check_buffers(const std::vector<Buffer>& buffers, unsigned char fill) {
  for (const Buffer& buffer : buffers) {
    const char* end = buffer.place + buffer.bytes;
    if (buffer.output) {
      const long at = first_uninitialised(buffer.place, buffer.bytes);
      if (at >= 0) {
        fprintf(stderr, "harness: byte %ld of the output '%s' is not written, or from what is not\n", at,
                buffer.name.c_str());
        _exit(3);
      }
    }
    if (!slack_is_whole(buffer.mapped + guard(), buffer.place, fill) ||
        !slack_is_whole(end, buffer.mapped + buffer.mapped_bytes - guard(), fill)) {
      fprintf(stderr, "harness: out of bounds: bytes beside '%s' are written\n", buffer.name.c_str());
      _exit(3);
    }
  }
}

void free_buffers(std::vector<Buffer>& buffers) {
  for (Buffer& buffer : buffers) {
    allow(buffer.mapped + guard(), buffer.mapped_bytes - 2 * guard());
    munmap(buffer.mapped, buffer.mapped_bytes);
  }
}

void watch_guards(const std::vector<Buffer>* buffers) {
  watched = buffers;
  static char stack[64 * 1024];  // the fault may be that a fiber's own stack is full
  stack_t other = {};
  other.ss_sp = stack;
  other.ss_size = sizeof stack;
  sigaltstack(&other, nullptr);
  struct sigaction action = {};
  action.sa_sigaction = on_fault;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK;
  sigaction(SIGSEGV, &action, nullptr);
  sigaction(SIGBUS, &action, nullptr);
}

}  // namespace harness
