  // A threadgroup computes 32 outputs of all rows of x; its simdgroups share the blocks of inputs between them.
  // Template: T (of x and y), K and N (inputs and outputs), DOUBLE (magnitudes are 8-bit codes).
  constexpr int WORD = 8;  // codes of a word
  constexpr int BLOCKS = K / NF4_BLOCK;
  threadgroup float values[16];
  threadgroup float levels_near[256];
  threadgroup float parts[SKINNY_SIMDGROUPS * SKINNY_TILES * 64];
  const uint lane = thread_index_in_simdgroup;
  const uint t = thread_index_in_threadgroup;
  if (t < 16) values[t] = NF4_VALUES[t];
  if (DOUBLE && t < 256) levels_near[t] = levels[t];
  threadgroup_barrier(mem_flags::mem_threadgroup);

  const int row = skinny_row(lane);
  const int column = skinny_column(lane);
  const int first = int(threadgroup_position_in_grid.y) * SKINNY_TILES * 8;
  const int rows = x_shape[0];
  simdgroup_matrix<float, 8, 8> sums[SKINNY_TILES];
  for (int tile = 0; tile < SKINNY_TILES; tile++) sums[tile] = make_filled_simdgroup_matrix<float, 8, 8>(0.0f);

  for (int group = int(simdgroup_index_in_threadgroup); group < BLOCKS; group += SKINNY_SIMDGROUPS) {
    float magnitudes[SKINNY_TILES];
    for (int tile = 0; tile < SKINNY_TILES; tile++) {
      const int output = first + tile * 8 + row < N ? first + tile * 8 + row : N - 1;  // computed, never written
      const size_t block = size_t(output) * BLOCKS + group;
      if (DOUBLE) {
        const size_t second = block / NF4_SECOND;
        magnitudes[tile] = levels_near[uint(codes[block])] * seconds[2 * second] + seconds[2 * second + 1];
      } else {
        magnitudes[tile] = float(codes[block]);
      }
    }
    for (int k = group * NF4_BLOCK; k < (group + 1) * NF4_BLOCK; k += 8 * SKINNY_STEPS) {
      simdgroup_matrix<float, 8, 8> inputs[SKINNY_STEPS];
      skinny_inputs(x, rows, K, column, k + 4 * row, inputs);
      for (int tile = 0; tile < SKINNY_TILES; tile++) {
        const int output = first + tile * 8 + row < N ? first + tile * 8 + row : N - 1;
        uint word = weight[size_t(output) * (K / WORD) + (k + 4 * column) / WORD];
        float weights[WORD];
        for (int i = 0; i < WORD; i++) {
          weights[i] = magnitudes[tile] * values[word & 15];
          word >>= 4;
        }
        skinny_multiply(weights, inputs, sums[tile]);
      }
    }
  }

  skinny_keep(sums, lane, simdgroup_index_in_threadgroup, parts);
  threadgroup_barrier(mem_flags::mem_threadgroup);
  const int output = int(t) % (SKINNY_TILES * 8);
  const int y_row = int(t) / (SKINNY_TILES * 8);
  if (y_row < rows && first + output < N) {
    y[size_t(y_row) * N + first + output] = T(skinny_sum(parts, output, y_row));
  }
