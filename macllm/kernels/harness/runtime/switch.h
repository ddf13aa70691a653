// Leaves one stack for another: the registers that a call must keep are pushed, the stack pointer is exchanged.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

// The same symbol whatever prefix the system gives to names of C.
extern "C" void harness_switch(void** save, void* load) __asm__("harness_switch");

#if defined(__x86_64__)
__asm__(
    ".text\n.p2align 4\n.globl harness_switch\nharness_switch:\n"
    "  pushq %rbp\n  pushq %rbx\n  pushq %r12\n  pushq %r13\n  pushq %r14\n  pushq %r15\n"
    "  movq %rsp, (%rdi)\n  movq %rsi, %rsp\n"
    "  popq %r15\n  popq %r14\n  popq %r13\n  popq %r12\n  popq %rbx\n  popq %rbp\n  ret\n");

// The stack pointer of a fiber that has not run yet; loading it enters `main`.
inline void* harness_first_frame(char* top, void (*main)()) {
  void** place = (void**)((uintptr_t)top & ~(uintptr_t)15);
  *--place = nullptr;  // main's return address: it never returns
  *--place = (void*)main;
  for (int i = 0; i < 6; i++) *--place = nullptr;
  return place;
}
#elif defined(__aarch64__)
__asm__(
    ".text\n.p2align 4\n.globl harness_switch\nharness_switch:\n"
    "  sub sp, sp, #176\n  stp x19, x20, [sp, #0]\n  stp x21, x22, [sp, #16]\n  stp x23, x24, [sp, #32]\n"
    "  stp x25, x26, [sp, #48]\n  stp x27, x28, [sp, #64]\n  stp x29, x30, [sp, #80]\n"
    "  stp d8, d9, [sp, #96]\n  stp d10, d11, [sp, #112]\n  stp d12, d13, [sp, #128]\n"
    "  stp d14, d15, [sp, #144]\n  mov x9, sp\n  str x9, [x0]\n  mov sp, x1\n"
    "  ldp x19, x20, [sp, #0]\n  ldp x21, x22, [sp, #16]\n  ldp x23, x24, [sp, #32]\n"
    "  ldp x25, x26, [sp, #48]\n  ldp x27, x28, [sp, #64]\n  ldp x29, x30, [sp, #80]\n"
    "  ldp d8, d9, [sp, #96]\n  ldp d10, d11, [sp, #112]\n  ldp d12, d13, [sp, #128]\n"
    "  ldp d14, d15, [sp, #144]\n  add sp, sp, #176\n  ret\n");

inline void* harness_first_frame(char* top, void (*main)()) {
  char* place = (char*)((uintptr_t)top & ~(uintptr_t)15) - 176;
  memset(place, 0, 176);
  *(void**)(place + 88) = (void*)main;  // the link register
  return place;
}
#else
#error "the harness knows how to switch stacks on x86-64 and arm64 only"
#endif
