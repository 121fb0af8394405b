/**
 * What a pull does with one layer, alone: decompressed, verified and unpacked in the confined helper. The benchmark
 * compiles this to a program, which is its own helper as minirun is: `unpack ARCHIVE DIRECTORY`.
 */
import fs from 'node:fs';

if (process.argv[2] === 'init') {
  const { main } = await import('../../src/init/main.ts');
  await main();
} else {
  const [archive = '', directory = ''] = process.argv.slice(2);
  const { unpackLayer } = await import('../../src/image/layer.ts');
  const { diffId } = await unpackLayer(fs.createReadStream(archive, { highWaterMark: 1 << 18 }), directory);
  process.stdout.write(`${diffId}\n`);
}
