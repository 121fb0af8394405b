import { expect, test } from 'bun:test';
import lock from '../../package-lock.json';

interface Package {
  version?: string;
  optionalDependencies?: Record<string, string>;
}

// npm leaves a platform package out of package-lock.json when the registry at hand does not carry it (a mirror). Then
// `npm ci` of npm 11 refuses the file ("Missing: … from lock file") on every machine, with a mirror or without.
test('package-lock.json names every optional package, for npm ci on other machines', () => {
  const packages: Record<string, Package> = lock.packages;
  const missing = Object.entries(packages).flatMap(([owner, { optionalDependencies = {} }]) =>
    Object.keys(optionalDependencies).filter(
      (name) =>
        packages[`node_modules/${name}`]?.version === undefined &&
        packages[`${owner}/node_modules/${name}`]?.version === undefined,
    ),
  );
  expect(missing).toEqual([]);
});
