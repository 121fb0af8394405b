/** Runs a classic BPF program as the kernel's verifier and interpreter would; returns its value and its path length. */
export function run(program: Uint8Array, audit: number, number: number, args: readonly bigint[]) {
  const data = new DataView(new ArrayBuffer(64));
  data.setUint32(0, number, true);
  data.setUint32(4, audit, true);
  args.forEach((value, index) => data.setBigUint64(16 + 8 * index, value, true));
  const code = new DataView(program.buffer, program.byteOffset, program.byteLength);
  let accumulator = 0;
  let counter = 0;
  for (let steps = 1; ; steps++) {
    if (counter * 8 >= program.length) throw new Error('the program runs off its end');
    const yes = code.getUint8(counter * 8 + 2);
    const no = code.getUint8(counter * 8 + 3);
    const k = code.getUint32(counter * 8 + 4, true);
    const jump = (condition: boolean) => (condition ? yes : no);
    const opcode = code.getUint16(counter * 8, true);
    counter++;
    if (opcode === 0x20) accumulator = data.getUint32(k, true);
    else if (opcode === 0x54) accumulator = (accumulator & k) >>> 0;
    else if (opcode === 0x05) counter += k;
    else if (opcode === 0x15) counter += jump(accumulator === k);
    else if (opcode === 0x25) counter += jump(accumulator > k);
    else if (opcode === 0x35) counter += jump(accumulator >= k);
    else if (opcode === 0x06) return { value: k, steps };
    else throw new Error(`unexpected opcode ${opcode}`);
  }
}
