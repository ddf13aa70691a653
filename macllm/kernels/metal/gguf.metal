// What the block types of GGUF have in common. Blocks are read in parts of sixteen weights: eight neighbours, and the
// eight that lie BLOCK_APART weights further on, which share their bytes in most types. A type's own text says
//
//   BLOCK_WEIGHTS, BLOCK_BYTES  of a block
//   BLOCK_APART                 weights from the first eight of a part to the other eight
//   BLOCK_OFFSET                what is taken off a code; BLOCK_TABLE: a code stands for a value of the table
//   BLOCK_BIASED                whether weights are scale * code + bias or scale * code
//   block_part(block, part)     the codes, scales and biases of a part
//
// Blocks begin at even addresses: a word may be read whole only in types whose size is a multiple of four.

struct BlockPart {
  uint codes[4];    // four codes a word, the first in the low byte: the first eight, then the other eight
  float scales[2];  // of the first eight, of the other eight
  float biases[2];
};

constant float BLOCK_VALUES[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};

METAL_FUNC uint block_word(const device uint8_t* at) {
  return *(const device uint*)at;
}

METAL_FUNC uint block_word_of_pairs(const device uint8_t* at) {
  const device ushort* pairs = (const device ushort*)at;
  return uint(pairs[0]) | (uint(pairs[1]) << 16);
}

METAL_FUNC float block_half(uint bits) {
  return float(as_type<half>(ushort(bits)));
}

METAL_FUNC float block_half_at(const device uint8_t* at) {
  return block_half(*(const device ushort*)at);
}

// The low halves of eight bytes, then the high ones.
METAL_FUNC void block_nibbles(thread BlockPart& found, uint first, uint second) {
  found.codes[0] = first & 0x0F0F0F0Fu;
  found.codes[1] = second & 0x0F0F0F0Fu;
  found.codes[2] = (first >> 4) & 0x0F0F0F0Fu;
  found.codes[3] = (second >> 4) & 0x0F0F0F0Fu;
}

// Four bits as the lowest bits of four bytes.
METAL_FUNC uint block_spread(uint bits) {
  return ((bits & 15u) * 0x00204081u) & 0x01010101u;
}

METAL_FUNC void block_same_scale(thread BlockPart& found, float scale, float bias) {
  found.scales[0] = scale;
  found.scales[1] = scale;
  found.biases[0] = bias;
  found.biases[1] = bias;
}
