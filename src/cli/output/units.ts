/** A length of time as `docker ps` prints it (`About a minute`, `3 hours`): the rules of Docker's go-units. */
export function humanDuration(milliseconds: number): string {
  const seconds = Math.floor(milliseconds / 1000);
  if (seconds < 1) return 'Less than a second';
  if (seconds === 1) return '1 second';
  if (seconds < 60) return `${seconds} seconds`;
  const minutes = Math.floor(seconds / 60);
  if (minutes === 1) return 'About a minute';
  if (minutes < 60) return `${minutes} minutes`;
  // From here on go-units rounds to the nearest hour: 90 minutes are two hours.
  const hours = Math.floor(milliseconds / 3_600_000 + 0.5);
  if (hours === 1) return 'About an hour';
  if (hours < 48) return `${hours} hours`;
  if (hours < 24 * 7 * 2) return `${Math.floor(hours / 24)} days`;
  if (hours < 24 * 30 * 2) return `${Math.floor(hours / 24 / 7)} weeks`;
  if (hours < 24 * 365 * 2) return `${Math.floor(hours / 24 / 30)} months`;
  return `${Math.floor(milliseconds / 3_600_000 / 24 / 365)} years`;
}

const SIZE_UNITS = ['B', 'kB', 'MB', 'GB', 'TB', 'PB', 'EB', 'ZB', 'YB'] as const;

/**
 * A number of bytes in powers of 1000, as Docker prints sizes: `0B`, `4.274MB`.
 *
 * @param digits significant digits; Docker uses 4 for most sizes, and 3 in `images` and `ps --size`
 */
export function humanSize(bytes: number, digits = 4): string {
  let size = bytes;
  let unit = 0;
  while (size >= 1000 && unit < SIZE_UNITS.length - 1) {
    size /= 1000;
    unit += 1;
  }
  // Number() drops the zeros that toPrecision() pads with, like Go's %.4g, and the 1e+03 that Go makes of 999.9 in
  // three digits.
  return `${Number(size.toPrecision(digits))}${SIZE_UNITS[unit] ?? ''}`;
}

const BINARY_UNITS = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB', 'EiB'] as const;

/** A number of bytes in powers of 1024, as Docker prints memory: `0B`, `1.5MiB`. */
export function binarySize(bytes: number): string {
  let size = bytes;
  let unit = 0;
  while (size >= 1024 && unit < BINARY_UNITS.length - 1) {
    size /= 1024;
    unit += 1;
  }
  return `${Number(size.toPrecision(4))}${BINARY_UNITS[unit] ?? ''}`;
}
