import { createHash } from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';
import { gzipSync } from 'node:zlib';
import { readTree, type Tree } from './tree.ts';
import type { World } from './world.ts';

/**
 * The layers of an image that has in it whatever an image may have: a shell script each, run in the image's root. The
 * first two make an image that runs.
 *
 * Written for buildah with overlay, whose layers have whiteouts and opaque directories as the image-spec has them.
 */
export const everything: readonly string[] = [
  // 1: what runs; and what every container needs, so that starting one changes nothing.
  `mkdir -p bin proc sys dev etc tmp root var/empty usr/lib
   busybox=$(command -v busybox.static || command -v busybox-static || command -v busybox); cp "$busybox" bin/busybox; chmod 755 bin/busybox
   for applet in sh sleep cat ls true id stat; do ln -s busybox bin/$applet; done
   : >etc/hosts; : >etc/hostname; : >etc/resolv.conf
   echo root:x:0:0:root:/root:/bin/sh >etc/passwd; echo root:x:0: >etc/group
   chmod 1777 tmp; chmod 700 root`,
  // 2: plenty of files, for what later layers remove and replace.
  `for d in 0 1 2 3 4 5 6 7; do mkdir -p usr/lib/$d; for f in 0 1 2 3 4 5 6 7 8 9; do echo $d $f >usr/lib/$d/$f; done; done
   mkdir -p gone/deep/er stays opaque/sub covered/below same again
   for f in gone/a gone/deep/b gone/deep/er/c stays/drop stays/keep opaque/old opaque/sub/old covered/file covered/below/file; do
     echo "$f of layer 2" >$f; done
   echo old >same/name; echo first >again/file; mkdir again/dir; echo x >again/dir/x
   echo file >turn-file; mkdir turn-dir; echo in >turn-dir/in; ln -s turn-dir turn-link; ln -s /etc/passwd turn-link-2
   mkfifo turn-fifo; echo target >turn-target; ln -s nowhere turn-dangling; mkdir turn-dir-2; echo in >turn-dir-2/in
   mkdir target-dir; echo kept >target-dir/kept; ln -s target-dir link-to-dir`,
  // 3: whiteouts of a file, of a link and of a tree.
  `rm -r gone; rm stays/drop again/file bin/stat; rm -r again/dir usr/lib/7; rm usr/lib/6/*`,
  // 4: opaque directories: deleted and made again in one layer, also one inside another, also without anything in it.
  `rm -r opaque; mkdir opaque; echo new >opaque/new; mkdir opaque/sub; echo new >opaque/sub/new
   rm -r covered/below; mkdir covered/below; rm -r same; mkdir same; echo new >same/name; rm -r usr/lib/5; mkdir usr/lib/5`,
  // 5: hard links in a directory and across directories, to a link, to a FIFO, to an empty file.
  `mkdir -p links/one links/two; echo linked >links/one/a; ln links/one/a links/one/b; ln links/one/a links/two/c
   ln links/one/a zz-link; ln links/one/a aa-link; ln -s one/a links/soft; ln -P links/soft links/soft-too
   mkfifo links/fifo; ln links/fifo links/two/fifo; : >links/empty; ln links/empty links/two/empty
   echo pair >links/pair-1; ln links/pair-1 links/pair-2; echo three >links/three-1
   ln links/three-1 links/three-2; ln links/three-1 links/three-3; echo mode >links/mode-1; ln links/mode-1 links/mode-2`,
  // 6: a hard-linked file changed, removed, replaced, and given another mode; a new link to a file of a lower layer.
  `echo changed >>links/pair-2; rm links/three-1; rm links/two/c; echo another >links/two/c; chmod 600 links/mode-2
   ln usr/lib/0/1 usr/lib/0/1-too; ln links/three-2 links/three-4`,
  // 7: owners, and setuid, setgid and sticky, which chown takes away when it comes later.
  `mkdir modes; cd modes; for mode in 0000 0111 0444 0600 0755 1755 2755 4755 6711 7777; do echo $mode >$mode; done
   chown 1000:1000 4755 2755 6711; chown 65534:65534 0600; chown 2000000:3000000 0444; chown 4294967294:4294967294 0755
   for mode in 0000 0111 0444 0600 0755 1755 2755 4755 6711 7777; do chmod $mode $mode; done
   mkdir shared; chown 0:50 shared; chmod 2775 shared; mkdir drop; chmod 1777 drop; mkdir closed; chmod 0000 closed
   ln -s 0755 owned-link; chown -h 1234:5678 owned-link; mkdir of-user; echo x >of-user/x; chown -R 1000:1001 of-user`,
  // 8: file capabilities and attributes, on files, a directory and a hard link; binary, empty, with a new line.
  `mkdir xattrs; cd xattrs; for f in ping text binary empty lines linked both; do echo $f >$f; done; mkdir directory
   chown 1000:1000 ping; setcap cap_net_raw,cap_net_admin+ep ping; setcap cap_net_bind_service+ei both
   setfattr -n user.comment -v 'some text' text; setfattr -n user.binary -v 0x00ff0a3d00 binary; setfattr -n user.empty empty
   setfattr -n user.lines -v "$(printf 'a=b\\nc d=e\\n')" lines; setfattr -n user.both -v b both
   setfattr -n user.dir -v d directory; setfattr -n user.linked -v l linked; ln linked linked-too
   setfattr -n user.ünï -v 1 text; setfattr -n user.long -v "$(printf %03000d 7)" text`,
  // 9: FIFOs and devices.
  `mkdir special; cd special; mkfifo fifo; mkfifo -m 0622 open-fifo; mknod null c 1 3; mknod -m 0600 disk b 259 70000
   mknod large c 1000 500000; chown 5:6 fifo null; ln null null-too`,
  // 10: names and targets that do not fit the fields of a plain tar header, or look like something else.
  `mkdir names; cd names
   long=$(printf %0100d 0); echo 100 >$long; echo 101 >1$long; full=$(printf %0255d 0); echo 255 >$full
   d=deep; for i in 1 2 3; do d=$d/$(printf %0120d $i); done; mkdir -p $d; echo deep >$d/file; ln $d/file $d/link
   mkdir dir-$long; echo x >dir-$long/$long; ln -s $d/file long-target; ln $d/file hard-to-long
   echo u >ünïcödé-名前-🐳; echo n >"$(printf 'new\\nline')"; echo s >' two  spaces '; echo d >-dash; echo b >'back\\slash'
   echo q >"quo'te\\""; echo p >'%d%s\${x}'; echo h >'#hash'; echo t >"$(printf 'tab\\t')"; echo c >"$(printf '\\001\\033')"
   echo e >=equals; echo w >.whole; echo w >wh.file; mkdir '...'; echo x >'.../..x'; echo pax >PaxHeaders.0; echo b >"$(printf 'bytes\\377\\376')"; ln -s "$(printf 'bytes\\377\\376')" "$(printf 'link\\200')"
   ln -s ünïcödé-名前-🐳 unicode-link; ln -s "$(printf 'new\\nline')" new-line-link`,
  // 11: one kind of entry in another's place.
  `rm turn-file; mkdir turn-file; echo in >turn-file/in; rm -r turn-dir; echo file >turn-dir
   rm turn-link; mkdir turn-link; echo in >turn-link/in; rm turn-link-2; echo file >turn-link-2; rm turn-fifo; echo file >turn-fifo
   rm turn-target; ln -s etc turn-target; rm turn-dangling; mkfifo turn-dangling; rm -r turn-dir-2; ln -s /nowhere turn-dir-2
   echo through >link-to-dir/added; rm usr/lib/4/4; ln -s 5 usr/lib/4/4
   ln -s / abs-link; ln -s /bin/busybox abs-file; ln -s ../../../../../etc/passwd up-link; ln -s . self-dir; ln -s loop loop
   ln -s 'bin/sh ' space-link`,
  // 12: empty and sparse files, changes of metadata only, what was removed made again, times in past and future.
  `: >empty; mkdir empty-dir; dd if=/dev/zero of=sparse bs=1 count=0 seek=3000000 2>/dev/null
   printf begin >sparse-2; dd if=/dev/zero of=sparse-2 bs=1 count=0 seek=1000000 2>/dev/null; printf end >>sparse-2
   head -c 300000 bin/busybox >binary
   chmod 700 stays; chown 7:8 usr/lib/0; chmod 640 usr/lib/0/2; chown 9:9 usr/lib/0/3
   echo back >again/file; mkdir again/dir; echo y >again/dir/y; mkdir gone; echo back >gone/a; mkdir usr/lib/7; echo 7 >usr/lib/7/7
   touch -h -d @1000000000 link-to-dir abs-link; touch -d @0 empty; touch -d @2524608000 binary; touch -d @1.5 again/file
   touch -d @500000000 usr/lib/0 usr/lib/1/1 links links/two opaque/sub names modes/closed special/fifo covered
   touch -d @400000000 usr/lib usr var stays; touch -d @86400 usr/lib/0/5`,
];

export type ManifestKind = 'oci' | 'docker';
export type LayerKind = 'gzip' | 'zstd' | 'plain';

/** Where images are made: buildah, skopeo and umoci in a world, with a storage and settings of their own. */
export class Workshop {
  private constructor(private readonly world: World) {}

  /** Gives the world's host an /etc, /run and /var/lib of its own, in which those programs find and leave what they like. */
  static async open(world: World): Promise<Workshop> {
    const workshop = new Workshop(world);
    await world.sh(`
      own() { mkdir -p private/$1 private/$1-work; mount -t overlay -o lowerdir=$2,upperdir=$PWD/private/$1,workdir=$PWD/private/$1-work overlay $2; }
      mkdir -p private/netns storage layers trees
      mount --rbind /run/netns private/netns
      own etc /etc; own lib /var/lib; own run /run
      mount --rbind private/netns /run/netns; umount -l private/netns
      mount -t tmpfs shm /dev/shm
      [ ! -e resolv.conf ] || mount --bind resolv.conf /etc/resolv.conf
      mkdir -p /etc/containers`);
    const settings = {
      'policy.json': '{"default": [{"type": "insecureAcceptAnything"}]}',
      'registries.conf': '[[registry]]\nlocation = "localhost"\ninsecure = true\n',
      'storage.conf': `[storage]\ndriver = "overlay"\ngraphroot = "${world.directory}/storage/graph"\nrunroot = "${world.directory}/storage/run"\n`,
    };
    for (const [name, text] of Object.entries(settings)) {
      fs.writeFileSync(world.host.path(`/etc/containers/${name}`), text);
    }
    return workshop;
  }

  /** Runs a shell script with these tools. Fails unless it exits with 0. @returns what it printed */
  async sh(script: string): Promise<string> {
    return this.world.sh(script, { env: { TMPDIR: this.world.directory }, timeout: 60_000 });
  }

  /**
   * Builds an image in containers-storage, a layer for each shell script, run in the image's root.
   *
   * @param options.from the image to begin with
   * @param options.config arguments of `buildah config`
   */
  async build(
    name: string,
    layers: readonly string[],
    { from = 'scratch', config = '' }: { from?: string; config?: string } = {},
  ): Promise<void> {
    const directory = path.join(this.world.directory, 'layers', name.replaceAll('/', '-'));
    fs.mkdirSync(directory, { recursive: true });
    let script = `base=${from}\n`;
    for (const [index, layer] of layers.entries()) {
      const file = path.join(directory, String(index));
      fs.writeFileSync(file, layer);
      script += `
        container=$(buildah from --pull-never $base); root=$(buildah mount $container)
        (cd "$root" && sh -eu ${file}) || { echo "layer ${index + 1} of ${name} fails"; exit 1; }
        ${index === layers.length - 1 && config !== '' ? `buildah config ${config} $container` : ''}
        base=$(buildah commit --quiet --rm $container ${index === layers.length - 1 ? name : ''})\n`;
    }
    await this.sh(script);
  }

  /** Pushes an image of containers-storage to a registry: `localhost:5000/name:tag`. */
  async push(name: string, reference: string, kind: ManifestKind = 'oci', layers: LayerKind = 'gzip'): Promise<void> {
    const format = kind === 'oci' ? 'oci' : 'v2s2';
    const image = `containers-storage:localhost/${name}`;
    // What has been pushed in another form would be taken for the same.
    const forget = 'rm -rf /var/lib/containers/cache';
    if (layers === 'plain') {
      // Only between directories nothing is compressed.
      const directory = fs.mkdtempSync(path.join(this.world.directory, 'trees/plain-'));
      await this.sh(`cd ${directory}; ${forget}
        skopeo copy -q --dest-decompress ${image} dir:plain
        skopeo copy -q --format ${format} dir:plain dir:converted
        skopeo copy -q --preserve-digests dir:converted docker://${reference}`);
    } else if (layers === 'zstd') {
      await this.sh(
        `${forget}; buildah push -q --compression-format zstd --format ${format} ${name} docker://${reference}`,
      );
    } else {
      await this.sh(`${forget}; skopeo copy -q --format ${format} ${image} docker://${reference}`);
    }
  }

  /**
   * Pushes an index of images, one for each of these platforms (`linux/arm/v7`), which say in /platform what they are
   * for, and an entry as build tools add it for the attestation of the last.
   *
   * @returns digests of the images in the order of the platforms
   */
  async pushIndex(reference: string, platforms: readonly string[], kind: ManifestKind = 'oci'): Promise<string[]> {
    const [host = '', repository = '', tag = ''] = reference.split(/\/(.*):/);
    const list = `list-${repository.replaceAll('/', '-')}-${tag}`;
    let script = `buildah manifest create ${list}\n`;
    for (const platform of platforms) {
      const [os = '', architecture = '', variant] = platform.split('/');
      const flags = `--os ${os} --arch ${architecture} ${variant === undefined ? '' : `--variant ${variant}`}`;
      const name = `${list}-${platform.replaceAll('/', '-')}`;
      script += `
        container=$(buildah from scratch); root=$(buildah mount $container); mkdir $root/bin
        cp $(command -v busybox.static || command -v busybox-static || command -v busybox) $root/bin/busybox
        echo ${platform} >$root/platform
        buildah config ${flags} --cmd '["/bin/busybox","cat","/platform"]' $container
        buildah commit -q --rm $container ${name}; buildah manifest add ${list} containers-storage:localhost/${name}\n`;
    }
    await this.sh(
      `${script}\nbuildah manifest push -q --all -f ${kind === 'oci' ? 'oci' : 'v2s2'} ${list} docker://${reference}`,
    );
    const raw = await this.sh(`skopeo inspect --raw docker://${reference}`);
    const index = JSON.parse(raw) as { mediaType: string; manifests: Record<string, unknown>[] };
    const digests = index.manifests.map(({ digest }) => digest as string);
    const { digest, size, mediaType } = index.manifests.at(-1) as Record<string, unknown>;
    index.manifests.unshift({
      mediaType,
      digest,
      size,
      platform: { architecture: 'unknown', os: 'unknown' },
      annotations: { 'vnd.docker.reference.type': 'attestation-manifest', 'vnd.docker.reference.digest': digest },
    });
    const file = path.join(this.world.directory, `${list}.json`);
    fs.writeFileSync(file, JSON.stringify(index));
    await this.sh(
      `curl -sSf -X PUT -H 'Content-Type: ${index.mediaType}' --data-binary @${file} http://${host}/v2/${repository}/manifests/${tag}`,
    );
    return digests;
  }

  /**
   * Makes an OCI layout by hand of tar archives, for what buildah would not make.
   *
   * @returns its name for skopeo
   */
  layout(layers: readonly Buffer[]): string {
    const directory = fs.mkdtempSync(path.join(this.world.directory, 'trees/layout-'));
    fs.mkdirSync(path.join(directory, 'blobs/sha256'), { recursive: true });
    const digestOf = (content: Buffer): string => createHash('sha256').update(content).digest('hex');
    const blob = (mediaType: string, content: Buffer) => {
      const hex = digestOf(content);
      fs.writeFileSync(path.join(directory, 'blobs/sha256', hex), content);
      return { mediaType, digest: `sha256:${hex}`, size: content.length };
    };
    const json = (mediaType: string, value: unknown) => blob(mediaType, Buffer.from(JSON.stringify(value)));
    const type = 'application/vnd.oci.image';
    const config = json(`${type}.config.v1+json`, {
      architecture: process.arch === 'arm64' ? 'arm64' : 'amd64',
      os: 'linux',
      config: { Cmd: ['/bin/sh'] },
      rootfs: { type: 'layers', diff_ids: layers.map((layer) => `sha256:${digestOf(layer)}`) },
    });
    const manifest = json(`${type}.manifest.v1+json`, {
      schemaVersion: 2,
      mediaType: `${type}.manifest.v1+json`,
      config,
      layers: layers.map((layer) => blob(`${type}.layer.v1.tar+gzip`, gzipSync(layer))),
    });
    const annotations = { 'org.opencontainers.image.ref.name': 'it' };
    fs.writeFileSync(path.join(directory, 'oci-layout'), '{"imageLayoutVersion": "1.0.0"}');
    fs.writeFileSync(
      path.join(directory, 'index.json'),
      JSON.stringify({ schemaVersion: 2, manifests: [{ ...manifest, annotations }] }),
    );
    return `oci:${directory}:it`;
  }

  /** The tree of an image by its name for skopeo, as umoci unpacks it. */
  async unpacked(source: string): Promise<Tree> {
    const directory = fs.mkdtempSync(path.join(this.world.directory, 'trees/umoci-'));
    await this.sh(`cd ${directory}; skopeo copy -q ${source} oci:layout:it; umoci unpack --image layout:it bundle`);
    return readTree(this.world.host, path.join(directory, 'bundle/rootfs'));
  }

  /**
   * The tree of `everything` by a name for skopeo: what umoci unpacks, and one thing more. An extended attribute with
   * an empty value, which buildah writes, is none for Go's archive/tar: it takes the empty record for the removal of an
   * earlier one. GNU tar and minirun set it, as it was where the image was made.
   */
  async everythingOf(source: string): Promise<Tree> {
    const tree = await this.unpacked(source);
    const entry = tree.get('/xattrs/empty');
    if (entry === undefined || entry.xattrs !== undefined) throw new Error('umoci knows empty attributes now');
    entry.xattrs = { 'user.empty': '' };
    return tree;
  }

  /** The tree of an image of containers-storage, as podman and buildah mount it. */
  async mounted(name: string): Promise<Tree> {
    const container = (await this.sh(`buildah from --pull-never ${name}`)).trim();
    const root = (await this.sh(`buildah mount ${container}`)).trim();
    const tree = await readTree(this.world.host, root);
    await this.sh(`buildah rm ${container}`);
    return tree;
  }
}
