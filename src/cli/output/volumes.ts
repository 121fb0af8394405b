import type { VolumeListing } from '../../container/volume-store.ts';

/** A volume in docker's words, as `inspect` shows it. */
export function describeVolume({ created, labels, directory, name, options, anonymous }: VolumeListing): object {
  const shown = anonymous ? { ...labels, [anonymousLabel]: '' } : labels;
  return {
    CreatedAt: created,
    Driver: 'local',
    Labels: Object.keys(shown).length > 0 ? shown : null,
    Mountpoint: directory,
    Name: name,
    Options: Object.keys(options).length > 0 ? options : null,
    Scope: 'local',
  };
}

/** Docker's mark of a volume that nobody gave a name. */
const anonymousLabel = 'com.docker.volume.anonymous';
