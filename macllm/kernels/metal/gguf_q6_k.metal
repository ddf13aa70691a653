// Q6_K: 128 bytes of low halves, 64 bytes of fifth and sixth bits, 16 signed scales, scale of scales.

constant constexpr int BLOCK_WEIGHTS = 256;
constant constexpr int BLOCK_BYTES = 210;
constant constexpr int BLOCK_APART = 64;
constant constexpr int BLOCK_OFFSET = 32;
constant constexpr bool BLOCK_TABLE = false;
constant constexpr bool BLOCK_BIASED = false;

METAL_FUNC BlockPart block_part(const device uint8_t* block, int part) {
  BlockPart found;
  const device uint8_t* codes = block + 8 * part;
  block_nibbles(found, block_word_of_pairs(codes), block_word_of_pairs(codes + 4));
  const int half_block = part / 8;
  const int within = part % 8 * 8;
  for (int i = 0; i < 2; i++) {
    const device uint8_t* top = block + 128 + 32 * half_block + within % 32 + 4 * i;
    const uint bits = block_word_of_pairs(top) >> (within / 32 * 2);
    found.codes[i] |= (bits & 0x03030303u) << 4;
    found.codes[2 + i] |= ((bits >> 4) & 0x03030303u) << 4;
  }
  const device int8_t* factors = (const device int8_t*)(block + 192 + 8 * half_block + within / 16);
  const float scale = block_half_at(block + 208);
  found.scales[0] = scale * float(factors[0]);
  found.scales[1] = scale * float(factors[4]);
  found.biases[0] = 0;
  found.biases[1] = 0;
  return found;
}
