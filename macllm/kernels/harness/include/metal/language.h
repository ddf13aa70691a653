// Metal as a dialect of C++: all of the library, then the words that C++ does not have. Included last, as
// macros named `device` and `thread` would break any standard header that follows.
#pragma once

#include "metal/atomic.h"
#include "metal/matrix.h"
#include "metal/simd.h"

using namespace metal;

#define METAL_FUNC inline __attribute__((always_inline))
#define METAL_CONST static constexpr const
#define METAL_INTERNAL inline

#define device HARNESS_SPACE(1)
#define constant HARNESS_SPACE(2)
#define threadgroup HARNESS_SPACE(3)
#define thread
#define kernel

// A macro with arguments is one only before '(': the names stay types, and float4(...) becomes a constructor.
#define char2(...) harness::make<char2>(__VA_ARGS__)
#define char4(...) harness::make<char4>(__VA_ARGS__)
#define uchar2(...) harness::make<uchar2>(__VA_ARGS__)
#define uchar4(...) harness::make<uchar4>(__VA_ARGS__)
#define short2(...) harness::make<short2>(__VA_ARGS__)
#define short4(...) harness::make<short4>(__VA_ARGS__)
#define ushort2(...) harness::make<ushort2>(__VA_ARGS__)
#define ushort4(...) harness::make<ushort4>(__VA_ARGS__)
#define int2(...) harness::make<int2>(__VA_ARGS__)
#define int3(...) harness::make<int3>(__VA_ARGS__)
#define int4(...) harness::make<int4>(__VA_ARGS__)
#define uint2(...) harness::make<uint2>(__VA_ARGS__)
#define uint3(...) harness::make<uint3>(__VA_ARGS__)
#define uint4(...) harness::make<uint4>(__VA_ARGS__)
#define long2(...) harness::make<long2>(__VA_ARGS__)
#define ulong2(...) harness::make<ulong2>(__VA_ARGS__)
#define ulong3(...) harness::make<ulong3>(__VA_ARGS__)
#define ulong4(...) harness::make<ulong4>(__VA_ARGS__)
#define float2(...) harness::make<float2>(__VA_ARGS__)
#define float3(...) harness::make<float3>(__VA_ARGS__)
#define float4(...) harness::make<float4>(__VA_ARGS__)
#define half2(...) harness::make<half2>(__VA_ARGS__)
#define half3(...) harness::make<half3>(__VA_ARGS__)
#define half4(...) harness::make<half4>(__VA_ARGS__)
#define bfloat2(...) harness::make<bfloat2>(__VA_ARGS__)
#define bfloat3(...) harness::make<bfloat3>(__VA_ARGS__)
#define bfloat4(...) harness::make<bfloat4>(__VA_ARGS__)
