// In place of MLX's: bfloat is native here, and metal/math.h and metal/simd.h take any type.
