// Q4_1: scale, minimum, 16 bytes of which the low halves are the first 16 codes.

constant constexpr int BLOCK_WEIGHTS = 32;
constant constexpr int BLOCK_BYTES = 20;
constant constexpr int BLOCK_APART = 16;
constant constexpr int BLOCK_OFFSET = 0;
constant constexpr bool BLOCK_TABLE = false;
constant constexpr bool BLOCK_BIASED = true;

METAL_FUNC BlockPart block_part(const device uint8_t* block, int part) {
  BlockPart found;
  const device uint8_t* codes = block + 4 + 8 * part;
  block_nibbles(found, block_word(codes), block_word(codes + 4));
  const uint both = block_word(block);
  block_same_scale(found, block_half(both), block_half(both >> 16));
  return found;
}
