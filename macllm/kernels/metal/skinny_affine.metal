  // A threadgroup computes 32 outputs of all rows of x; its simdgroups share the groups of inputs between them.
  // Template: T (of x and y), K and N (inputs and outputs), GS (weights of a group), BITS (4 or 8).
  constexpr int CODES = 32 / BITS;  // of a word
  constexpr int GROUPS = K / GS;
  threadgroup float parts[SKINNY_SIMDGROUPS * SKINNY_TILES * 64];
  const uint lane = thread_index_in_simdgroup;
  const int row = skinny_row(lane);
  const int column = skinny_column(lane);
  const int first = int(threadgroup_position_in_grid.y) * SKINNY_TILES * 8;
  const int rows = x_shape[0];
  simdgroup_matrix<float, 8, 8> sums[SKINNY_TILES];
  for (int tile = 0; tile < SKINNY_TILES; tile++) sums[tile] = make_filled_simdgroup_matrix<float, 8, 8>(0.0f);

  for (int group = int(simdgroup_index_in_threadgroup); group < GROUPS; group += SKINNY_SIMDGROUPS) {
    for (int k = group * GS; k < (group + 1) * GS; k += 8 * SKINNY_STEPS) {
      simdgroup_matrix<float, 8, 8> inputs[SKINNY_STEPS];
      skinny_inputs(x, rows, K, column, k + 4 * row, inputs);
      for (int tile = 0; tile < SKINNY_TILES; tile++) {
        const int output = first + tile * 8 + row < N ? first + tile * 8 + row : N - 1;  // computed, never written
        const size_t place = size_t(output) * GROUPS + group;
        const float scale = float(scales[place]);
        const float bias = float(biases[place]);
        float weights[8];
        for (int w = 0; w < 8 / CODES; w++) {
          uint word = weight[size_t(output) * (K / CODES) + (k + 4 * column) / CODES + w];
          for (int i = 0; i < CODES; i++) {
            weights[w * CODES + i] = scale * float(word & ((1u << BITS) - 1)) + bias;
            word >>= BITS;
          }
        }
        skinny_multiply(weights, inputs, sums[tile]);
      }
    }
  }

  skinny_keep(sums, lane, simdgroup_index_in_threadgroup, parts);
  threadgroup_barrier(mem_flags::mem_threadgroup);
  const int output = int(thread_index_in_threadgroup) % (SKINNY_TILES * 8);
  const int y_row = int(thread_index_in_threadgroup) / (SKINNY_TILES * 8);
  if (y_row < rows && first + output < N) {
    y[size_t(y_row) * N + first + output] = T(skinny_sum(parts, output, y_row));
  }
