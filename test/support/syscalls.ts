import os from 'node:os';
import { i386, x86_64 } from '../../src/seccomp/tables.ts';

/**
 * A program that makes the system calls it is asked to make and tells what the kernel answers: the smallest there can be,
 * because it runs in an image that has nothing but busybox, on x86-64. It reads requests of 64 bytes until there are no more:
 * 0 for the machine's own ABI or 1 for the 32-bit one (int 0x80), the number, and six arguments, 8 bytes each. A child
 * makes each call, so that nothing is left of it, and shares its memory (vfork), so that its answer is not lost. It answers
 * with 16 bytes: the status of wait(2) of the child, and what the call returned.
 */
const code = `
  4881ec00010000        sub   rsp, 256
  31c0 31ff 4889e6      xor   eax, eax; xor edi, edi; mov rsi, rsp       ; next: read(0, request, 64)
  ba40000000 0f05       mov   edx, 64; syscall
  4883f840              cmp   rax, 64
  0f858a000000          jne   done
  b83a000000 0f05       mov   eax, 58; syscall                           ; vfork()
  85c0 7430             test  eax, eax; jz child
  b83d000000            mov   eax, 61                                    ; wait4(-1, answer, 0, 0)
  48c7c7ffffffff        mov   rdi, -1
  488d742440            lea   rsi, [rsp+64]
  31d2 4531d2 0f05      xor   edx, edx; xor r10d, r10d; syscall
  b801000000            mov   eax, 1                                     ; write(1, answer, 16)
  bf01000000            mov   edi, 1
  488d742440            lea   rsi, [rsp+64]
  ba10000000 0f05       mov   edx, 16; syscall
  ebad                  jmp   next
  488b442408            mov   rax, [rsp+8]                               ; child
  833c2400 7522         cmp   dword ptr [rsp], 0; jne compat
  488b7c2410            mov   rdi, [rsp+16]
  488b742418            mov   rsi, [rsp+24]
  488b542420            mov   rdx, [rsp+32]
  4c8b542428            mov   r10, [rsp+40]
  4c8b442430            mov   r8, [rsp+48]
  4c8b4c2438            mov   r9, [rsp+56]
  0f05 eb1d             syscall; jmp out
  8b5c2410              mov   ebx, [rsp+16]                              ; compat
  8b4c2418              mov   ecx, [rsp+24]
  8b542420              mov   edx, [rsp+32]
  8b742428              mov   esi, [rsp+40]
  8b7c2430              mov   edi, [rsp+48]
  8b6c2438              mov   ebp, [rsp+56]
  cd80 4863c0           int   0x80; movsxd rax, eax
  4889442448            mov   [rsp+72], rax                              ; out
  b83c000000 31ff 0f05  mov   eax, 60; xor edi, edi; syscall             ; done: exit(0)
`;

/** The program as an ELF file: a header, one program header that loads all of the file, and the code. */
export function syscallProgram(): Buffer {
  const bytes = code.split('\n').map((line) => /^ *((?:[0-9a-f]+ )+)/.exec(line)?.[1] ?? '');
  const text = Buffer.from(bytes.join('').replaceAll(' ', ''), 'hex');
  const [base, headers] = [0x400000n, 64 + 56];
  const file = Buffer.alloc(headers + text.length);
  file.write('\x7fELF\x02\x01\x01', 'latin1');
  file.writeUInt16LE(2, 16); // ET_EXEC
  file.writeUInt16LE(62, 18); // EM_X86_64
  file.writeUInt32LE(1, 20);
  file.writeBigUInt64LE(base + BigInt(headers), 24); // where it begins
  file.writeBigUInt64LE(64n, 32); // program headers
  file.writeUInt16LE(64, 52);
  file.writeUInt16LE(56, 54);
  file.writeUInt16LE(1, 56);
  file.writeUInt32LE(1, 64); // PT_LOAD
  file.writeUInt32LE(5, 68); // readable, executable
  file.writeBigUInt64LE(base, 80);
  file.writeBigUInt64LE(base, 88);
  file.writeBigUInt64LE(BigInt(file.length), 96);
  file.writeBigUInt64LE(BigInt(file.length), 104);
  file.writeBigUInt64LE(4096n, 112);
  text.copy(file, headers);
  return file;
}

/** A call by name or number, in the machine's own ABI, in its 32-bit one, or in x32. */
export interface SystemCall {
  abi: 'x86_64' | 'i386' | 'x32';
  call: string | number;
  args?: readonly (bigint | number)[];
}

export function encodeCalls(calls: readonly SystemCall[]): Buffer {
  return Buffer.concat(
    calls.map(({ abi, call, args = [] }) => {
      const request = Buffer.alloc(64);
      const known = typeof call === 'number' ? call : (abi === 'i386' ? i386 : x86_64)[call];
      if (known === undefined) throw new Error(`${abi} has no ${call}`);
      request.writeBigUInt64LE(abi === 'i386' ? 1n : 0n, 0);
      request.writeBigUInt64LE(BigInt(known) | (abi === 'x32' ? 0x4000_0000n : 0n), 8);
      args.forEach((value, index) => request.writeBigUInt64LE(BigInt.asUintN(64, BigInt(value)), 16 + 8 * index));
      return request;
    }),
  );
}

/** `EPERM`, `ok` for what succeeded, or `signal 31` for what killed the process. */
export function decodeAnswers(answers: Buffer): string[] {
  return Array.from({ length: Math.floor(answers.length / 16) }, (_, index) => {
    const status = answers.readUInt32LE(16 * index) & 0x7f;
    if (status !== 0) return `signal ${status}`;
    const value = answers.readBigInt64LE(16 * index + 8);
    if (value >= 0n || value < -4095n) return 'ok';
    return Object.entries(os.constants.errno).find(([, number]) => number === Number(-value))?.[0] ?? `errno ${-value}`;
  });
}
