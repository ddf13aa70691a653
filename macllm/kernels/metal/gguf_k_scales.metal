// How Q4_K and Q5_K begin: scale of scales, scale of minimums, eight of each of 6 bits in 12 bytes.

// The scales and minimums of the two groups of 32 in a quarter of a block.
METAL_FUNC void block_k_scales(thread BlockPart& found, const device uint8_t* block, int quarter) {
  const int shift = quarter % 2 * 16;
  const uint low = block_word(block + 4) >> shift;
  const uint mid = block_word(block + 8) >> shift;
  const uint high = block_word(block + 12) >> shift;
  const bool early = quarter < 2;
  const uint factors = early ? low & 0x3F3Fu : (high & 0x0F0Fu) | ((low >> 2) & 0x3030u);
  const uint minimums = early ? mid & 0x3F3Fu : ((high >> 4) & 0x0F0Fu) | ((mid >> 2) & 0x3030u);
  const uint both = block_word(block);
  for (int i = 0; i < 2; i++) {
    found.scales[i] = block_half(both) * float((factors >> (8 * i)) & 63u);
    found.biases[i] = -block_half(both >> 16) * float((minimums >> (8 * i)) & 63u);
  }
}
