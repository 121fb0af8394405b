/** Picks what this process is. Both ways are loaded lazily: init must not pay for the command line. */
if (process.argv[2] === 'init' && process.env.MINIRUN_INIT === '1') {
  const { main } = await import('./init/main.ts');
  await main();
} else {
  const { main } = await import('./cli/main.ts');
  await main(process.argv.slice(2));
}

export {};
