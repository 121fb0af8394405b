import { createHash, type Hash } from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';
import { Parser } from 'tar/parse';
import type { ReadEntry } from 'tar/read-entry';
import { MinirunError, messageOf } from '../errors.ts';
import { decompressed } from './compression.ts';
import { append } from './layer-archive.ts';
import { isDigest } from './reference.ts';
import type { Staging } from './staging.ts';

/** A file of an image archive, taken out under a name of our own. */
export interface ArchiveFile {
  file: string;
  /** Bytes. */
  size: number;
  /** Of the algorithm that its name says (`blobs/sha512/…`), else SHA-256. */
  digest: string;
}

/** The files of an image archive, found by the names that they have in it. */
export interface ArchiveFiles {
  find(name: string): Promise<ArchiveFile | undefined>;
  /** Whether the end of the archive was missing. */
  isCut: boolean;
}

/** Entries of one archive: an image has 127 layers at most, and few archives have more than a hundred images. */
const mostEntries = 50_000;
const mostLinks = 10;

/** Directories of a root filesystem; no writer of images calls anything so. */
const rootDirectories = new Set(['bin', 'dev', 'etc', 'lib', 'proc', 'sbin', 'sys', 'usr', 'var']);

export function noImageArchive(source: string, why: string, remedy?: string): MinirunError {
  return new MinirunError(
    `cannot load ${source}`,
    `it is not an image archive: ${why}`,
    remedy ?? 'Give one that docker save, podman save or minirun save made, or an OCI image layout',
  );
}

const isMetadata = (name: string) => ['manifest.json', 'index.json', 'oci-layout'].includes(name);

/**
 * Reads a tar archive, plain or compressed, once and to its end, and keeps its regular files in the staging directory.
 * Nothing is made by a name of the archive: names are only compared, also those that links point to. Of several files
 * with one name the last counts, as when it is unpacked.
 *
 * @param source what to call it in messages
 * @param options.largest bytes that a file may have
 * @throws MinirunError when it is no tar archive, damaged, or not one of images
 */
export async function readTar(
  chunks: AsyncIterable<Uint8Array>,
  staging: Staging,
  source: string,
  { signal, largest }: { signal?: AbortSignal; largest?: number } = {},
): Promise<ArchiveFiles> {
  const reader = new TarReader(staging, source, largest);
  try {
    for await (const chunk of decompressed(chunks)) {
      signal?.throwIfAborted();
      reader.write(chunk);
    }
    reader.end();
  } finally {
    reader.close();
  }
  return reader;
}

interface Writing {
  fd: number;
  hash: Hash;
}

class TarReader implements ArchiveFiles {
  isCut = true;
  private readonly files = new Map<string, ArchiveFile>();
  private readonly links = new Map<string, string>();
  private readonly parser: Parser;
  private failed: Error | undefined;
  private entries = 0;
  private begun = false;
  private writing: Writing | undefined;

  constructor(
    private readonly staging: Staging,
    private readonly source: string,
    private readonly largest = Number.POSITIVE_INFINITY,
  ) {
    this.parser = new Parser({
      zstd: false,
      onwarn: (code, message) => this.attempt(() => this.onWarning(code, messageOf(message))),
      onReadEntry: (entry) => {
        this.attempt(() => this.take(entry));
        // Takes an entry to its end of which nobody reads the data.
        entry.resume();
      },
    });
    this.parser.on('nullBlock', () => {
      this.isCut = false;
    });
  }

  write(chunk: Uint8Array): void {
    // node-tar would decompress what is still compressed, and more than it has been told.
    if (!this.begun && chunk.length > 0) {
      this.begun = true;
      if (chunk[0] === 0x1f) throw noImageArchive(this.source, 'it is no tar archive, or compressed twice');
    }
    this.parser.write(Buffer.from(chunk.buffer, chunk.byteOffset, chunk.byteLength));
    if (this.failed !== undefined) throw this.failed;
  }

  end(): void {
    this.parser.end();
    if (this.failed !== undefined) throw this.failed;
  }

  close(): void {
    if (this.writing !== undefined) fs.closeSync(this.writing.fd);
    this.writing = undefined;
  }

  async find(name: string): Promise<ArchiveFile | undefined> {
    let place = normal(name);
    for (let count = 0; count <= mostLinks; count++) {
      const file = this.files.get(place);
      if (file !== undefined) return file;
      const next = this.links.get(place);
      if (next === undefined) return undefined;
      place = next;
    }
    throw new MinirunError(`cannot load ${this.source}`, `the links at ${quote(name)} in it lead in circles`);
  }

  /** After the first error the rest of a chunk is passed over. */
  private attempt(act: () => void): void {
    try {
      if (this.failed === undefined) act();
    } catch (error) {
      this.failed = error as Error;
    }
  }

  private onWarning(code: string, message: string): void {
    if (code === 'TAR_ENTRY_INFO') return;
    if (this.entries === 0) throw noImageArchive(this.source, 'it is no tar archive');
    const isTruncated = code === 'TAR_BAD_ARCHIVE' && message.startsWith('Truncated');
    throw new MinirunError(`cannot load ${this.source}`, isTruncated ? 'it is cut off' : `it is damaged: ${message}`);
  }

  private take(entry: ReadEntry): void {
    this.entries++;
    if (this.entries > mostEntries) throw noImageArchive(this.source, `it has more than ${mostEntries} entries`);
    const name = normal(entry.path);
    this.refuseRootFilesystem(name);
    switch (entry.type) {
      case 'File':
      case 'OldFile':
      case 'ContiguousFile':
        this.links.delete(name);
        this.keep(name, entry);
        break;
      case 'SymbolicLink':
        this.files.delete(name);
        this.links.set(name, normal(path.posix.join(path.posix.dirname(name), String(entry.linkpath))));
        break;
      case 'Link':
        this.files.delete(name);
        this.links.set(name, normal(String(entry.linkpath)));
        break;
      default:
      // Directories mean nothing here, and devices and the like even less.
    }
  }

  private refuseRootFilesystem(name: string): void {
    const [top = ''] = name.split('/');
    if (!rootDirectories.has(top) || [...this.files.keys()].some(isMetadata)) return;
    throw noImageArchive(
      this.source,
      'it holds a root filesystem',
      `Make an image of it: minirun import ${this.source} NAME`,
    );
  }

  private keep(name: string, entry: ReadEntry): void {
    if (entry.size > this.largest) {
      throw new MinirunError(
        `cannot load ${this.source}`,
        `${quote(name)} in it has more than the ${this.largest} bytes that a layer may have`,
        'Raise limits.layer-size in the config file if you trust it',
      );
    }
    const file = this.staging.file(`archived-${this.entries}`);
    const algorithm = algorithmOf(name);
    const hash = createHash(algorithm);
    const fd = fs.openSync(file, 'wx', 0o600);
    this.writing = { fd, hash };
    entry.on('data', (chunk: Buffer) =>
      this.attempt(() => {
        hash.update(chunk);
        append(fd, chunk);
      }),
    );
    entry.on('end', () => {
      this.close();
      this.files.set(name, { file, size: entry.size, digest: `${algorithm}:${hash.digest('hex')}` });
    });
  }
}

/** A name without its detours. One that leads out of the archive keeps its `..` and so is no name of anything in it. */
function normal(name: string): string {
  return path.posix.normalize(name).replace(/^\/+/, '').replace(/\/+$/, '');
}

function algorithmOf(name: string): string {
  const [, algorithm = '', hex = ''] = /^blobs\/([^/]+)\/([^/]+)$/.exec(name) ?? [];
  return isDigest(`${algorithm}:${hex}`) ? algorithm : 'sha256';
}

/** The files of an OCI image layout that is a directory. Only those of the layout's own names are ever opened. */
export function layoutDirectory(
  directory: string,
  staging: Staging,
  { signal }: { signal?: AbortSignal } = {},
): ArchiveFiles {
  const taken = new Map<string, Promise<ArchiveFile | undefined>>();
  return {
    isCut: false,
    find: async (name) => {
      if (!/^(?:oci-layout|index\.json|blobs\/[a-z0-9]+\/[0-9a-f]+)$/.test(name)) return undefined;
      const found = taken.get(name) ?? takeOut(path.join(directory, name), name, staging, signal);
      taken.set(name, found);
      return found;
    },
  };
}

let serial = 0;

async function takeOut(
  place: string,
  name: string,
  staging: Staging,
  signal?: AbortSignal,
): Promise<ArchiveFile | undefined> {
  let source: number;
  try {
    // Whatever is there: a FIFO must not hold this up.
    source = fs.openSync(place, fs.constants.O_RDONLY | fs.constants.O_NONBLOCK | fs.constants.O_NOCTTY);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT' || code === 'ENOTDIR') return undefined;
    throw new MinirunError(`cannot read ${place}`, code === 'ELOOP' ? 'its links lead in circles' : messageOf(error));
  }
  if (!fs.fstatSync(source).isFile()) {
    fs.closeSync(source);
    throw new MinirunError(`cannot read ${place}`, 'it is not a regular file');
  }
  const algorithm = algorithmOf(name);
  const hash = createHash(algorithm);
  const file = staging.file(`archived-${serial++}`);
  const fd = fs.openSync(file, 'wx', 0o600);
  let size = 0;
  try {
    const stream = fs.createReadStream(place, { fd: source, highWaterMark: 1 << 20, signal });
    for await (const chunk of stream as AsyncIterable<Buffer>) {
      hash.update(chunk);
      append(fd, chunk);
      size += chunk.length;
    }
  } finally {
    fs.closeSync(fd);
  }
  return { file, size, digest: `${algorithm}:${hash.digest('hex')}` };
}

/** A text of the archive for a message. */
function quote(name: string): string {
  return JSON.stringify(name.slice(0, 200));
}
