const names: Record<string, string> = { x64: 'amd64', arm64: 'arm64' };

/** This machine's architecture in the words of the image-spec, which are Go's. */
export function architecture(): string {
  return names[process.arch] ?? process.arch;
}
