import { expect, test } from 'bun:test';
import { MinirunError } from '../../../src/errors.ts';
import { parseChanges } from '../../../src/image/changes.ts';

test('every instruction', () => {
  const config = parseChanges([
    'CMD ["sh", "-c", "echo hi"]',
    'entrypoint exec tool',
    'ENV A=1 B="two words" C=\'x "y"\' D=a\\ b',
    'ENV A=2',
    'ENV OLD form with spaces',
    'LABEL org.x="a b" y=',
    'EXPOSE 80 53/udp 8000-8002/TCP',
    'VOLUME ["/data", "/more"]',
    'VOLUME /x /y',
    'WORKDIR /srv',
    'WORKDIR app',
    'USER 1000:1000',
    'STOPSIGNAL SIGINT',
    'HEALTHCHECK --interval=1m30s --timeout=500ms --start-period=0s --retries=3 CMD ["check", "-q"]',
    'ONBUILD RUN make',
    'ONBUILD COPY . .',
    'SHELL ["/bin/ash", "-c"]',
  ]);
  expect(config).toEqual({
    Cmd: ['sh', '-c', 'echo hi'],
    Entrypoint: ['/bin/sh', '-c', 'exec tool'],
    Env: ['B=two words', 'C=x "y"', 'D=a b', 'A=2', 'OLD=form with spaces'],
    Labels: { 'org.x': 'a b', y: '' },
    ExposedPorts: { '80/tcp': {}, '53/udp': {}, '8000/tcp': {}, '8001/tcp': {}, '8002/tcp': {} },
    Volumes: { '/data': {}, '/more': {}, '/x': {}, '/y': {} },
    WorkingDir: '/srv/app',
    User: '1000:1000',
    StopSignal: 'SIGINT',
    Healthcheck: { Test: ['CMD', 'check', '-q'], Interval: 90e9, Timeout: 5e8, StartPeriod: 0, Retries: 3 },
    OnBuild: ['RUN make', 'COPY . .'],
    Shell: ['/bin/ash', '-c'],
  });
});

test('the shell form of a command, with a shell of its own, and of health checks', () => {
  expect(parseChanges(['SHELL ["/bin/ash", "-ec"]', 'CMD a | b']).Cmd).toEqual(['/bin/ash', '-ec', 'a | b']);
  expect(parseChanges(['healthcheck cmd a  "b" || exit 1']).Healthcheck).toEqual({
    Test: ['CMD-SHELL', 'a  "b" || exit 1'],
  });
  expect(parseChanges(['HEALTHCHECK NONE']).Healthcheck).toEqual({ Test: ['NONE'] });
});

test.each([
  'HEALTHCHECK true',
  'HEALTHCHECK CMD',
  'HEALTHCHECK --interval=30s',
  'HEALTHCHECK --interval=30 CMD true',
  'HEALTHCHECK --interval=1us CMD true',
  'HEALTHCHECK --speed=1s CMD true',
  'HEALTHCHECK --retries=many CMD true',
  'HEALTHCHECK NONE at all',
  'SHELL sh -c',
  'SHELL []',
  'ONBUILD ONBUILD RUN ls',
  'ONBUILD FROM x',
])('refused: %s', (change) => {
  expect(() => parseChanges([change])).toThrow(MinirunError);
});

test.each(['', 'RUN ls', 'CMD', 'EXPOSE http', 'EXPOSE 70000', 'EXPOSE 9-8', 'ENV X', 'LABEL =x', 'constructor x'])(
  'refused: %j',
  (change) => {
    expect(() => parseChanges([change])).toThrow(MinirunError);
  },
);
