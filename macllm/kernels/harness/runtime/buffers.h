// A kernel's buffers in guarded memory: pages that nobody may touch before and after each.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace harness {

// Against which of the two guards the buffer lies: the other side has up to a page of slack, which is checked
// after the run. A kernel is run at both.
enum class Side : uint64_t { end, start };

struct Buffer {
  std::string name;
  bool output = false;
  std::vector<char> contents;  // of an input
  size_t bytes = 0;
  char* mapped = nullptr;
  size_t mapped_bytes = 0;
  char* place = nullptr;
};

// Puts the buffers into guarded memory; outputs and slack hold `fill`.
void place_buffers(std::vector<Buffer>& buffers, Side side, unsigned char fill);
// Ends the program where an output was left uninitialised or a byte of slack was written.
void check_buffers(const std::vector<Buffer>& buffers, unsigned char fill);
void free_buffers(std::vector<Buffer>& buffers);
// A touch of a guard page ends the program with the buffer's name.
void watch_guards(const std::vector<Buffer>* buffers);

}  // namespace harness
