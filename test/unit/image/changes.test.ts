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
  });
});

test.each(['', 'RUN ls', 'CMD', 'EXPOSE http', 'EXPOSE 70000', 'EXPOSE 9-8', 'ENV X', 'LABEL =x', 'constructor x'])(
  'refused: %j',
  (change) => {
    expect(() => parseChanges([change])).toThrow(MinirunError);
  },
);
