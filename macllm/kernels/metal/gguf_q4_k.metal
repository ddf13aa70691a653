// Q4_K: 16 bytes of scales, then 32 bytes for each 64 weights, the low halves first.

constant constexpr int BLOCK_WEIGHTS = 256;
constant constexpr int BLOCK_BYTES = 144;
constant constexpr int BLOCK_APART = 32;
constant constexpr int BLOCK_OFFSET = 0;
constant constexpr bool BLOCK_TABLE = false;
constant constexpr bool BLOCK_BIASED = true;

METAL_FUNC BlockPart block_part(const device uint8_t* block, int part) {
  BlockPart found;
  const device uint8_t* codes = block + 16 + 8 * part;
  block_nibbles(found, block_word(codes), block_word(codes + 4));
  block_k_scales(found, block, part / 4);
  return found;
}
