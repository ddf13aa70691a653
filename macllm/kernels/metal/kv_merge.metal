  // One threadgroup puts together what the blocks of keys gave to one row, a thread one number of it.
  // Template: O (of y), D. count holds the number of blocks.
  const size_t row = size_t(threadgroup_position_in_grid.x);
  const int t = int(thread_position_in_threadgroup.x);
  const int blocks = count[0];
  float high = highs[row * blocks];
  for (int b = 1; b < blocks; b++) high = max(high, highs[row * blocks + b]);
  float total = 0;
  float sum = 0;
  for (int b = 0; b < blocks; b++) {
    const size_t part = row * blocks + b;
    const float fall = exp2(highs[part] - high);
    total += totals[part] * fall;
    sum += parts[part * D + t] * fall;
  }
  y[row * D + t] = O(sum / total);
