import { describe, expect, test } from 'bun:test';
import { MinirunError } from '../../../../src/errors.ts';
import { renderTemplate, Template } from '../../../../src/cli/output/template.ts';

/** The parts of `docker inspect web` that these tests ask for. */
const container = {
  Id: '4f0c2d1e5b6a7988',
  Name: '/web',
  RestartCount: 0,
  State: { Status: 'running', Running: true, Paused: false, ExitCode: 0, Pid: 4711, Health: undefined },
  Config: {
    Hostname: '4f0c2d1e5b6a',
    Cmd: ['nginx', '-g', 'daemon off;'],
    Env: ['PATH=/usr/bin:/bin', 'LANG=C'],
    Labels: { tier: 'front', 'com.example.owner': 'R&D <ops>' },
    Volumes: null,
  },
  Mounts: [],
  NetworkSettings: {
    Ports: {
      '80/tcp': [
        { HostIp: '0.0.0.0', HostPort: '8080' },
        { HostIp: '::', HostPort: '8080' },
      ],
      '443/tcp': null,
    },
    Networks: {
      minirun0: { IPAddress: '10.90.0.2', Gateway: '10.90.0.1' },
      lab: { IPAddress: '10.91.0.7', Gateway: '10.91.0.1' },
    },
  },
};

const render = (template: string): string => renderTemplate(template, container);

describe('what people type after docker inspect -f', () => {
  test.each([
    ['{{.Name}}', '/web'],
    ['{{ .Name }}', '/web'],
    ['{{.State.Status}}', 'running'],
    ['{{.State.Running}}', 'true'],
    ['{{.State.Pid}}', '4711'],
    ['{{.State.ExitCode}}', '0'],
    ['{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}', '10.91.0.710.90.0.2'],
    ['{{range .NetworkSettings.Networks}}{{.IPAddress}} {{end}}', '10.91.0.7 10.90.0.2 '],
    [
      '{{range $name, $net := .NetworkSettings.Networks}}{{$name}}={{$net.Gateway}};{{end}}',
      'lab=10.91.0.1;minirun0=10.90.0.1;',
    ],
    ['{{.NetworkSettings.Networks.minirun0.IPAddress}}', '10.90.0.2'],
    ['{{(index .NetworkSettings.Networks "lab").IPAddress}}', '10.91.0.7'],
    ['{{(index (index .NetworkSettings.Ports "80/tcp") 0).HostPort}}', '8080'],
    ['{{json .Config.Labels}}', '{"com.example.owner":"R&D <ops>","tier":"front"}'],
    ['{{json .Config.Cmd}}', '["nginx","-g","daemon off;"]'],
    ['{{.Config.Hostname | json}}', '"4f0c2d1e5b6a"'],
    ['{{json .State.Health}}', 'null'],
    ['{{index .Config.Labels "com.example.owner"}}', 'R&D <ops>'],
    ['{{index .Config.Labels "none"}}', ''],
    ['{{.Config.Labels.tier}}', 'front'],
    ['{{.Config.Labels.none}}', '<no value>'],
    ['{{.NetworkSettings.Networks.none.IPAddress}}', '<no value>'],
    ['{{.State.Health}}', '<nil>'],
    ['{{.Config.Cmd}}', '[nginx -g daemon off;]'],
    ['{{.Config.Labels}}', 'map[com.example.owner:R&D <ops> tier:front]'],
    ['{{.Mounts}}', '[]'],
    ['{{join .Config.Cmd " "}}', 'nginx -g daemon off;'],
    ['{{range .Config.Env}}{{println .}}{{end}}', 'PATH=/usr/bin:/bin\nLANG=C\n'],
    ['{{if .State.Health}}{{.State.Health.Status}}{{else}}none{{end}}', 'none'],
    ['{{len .Config.Env}} {{len .Config.Labels}} {{len .Name}}', '2 2 4'],
    [
      '{{range $p, $conf := .NetworkSettings.Ports}}{{with $conf}}{{$p}} -> {{(index . 0).HostPort}}{{end}}{{end}}',
      '80/tcp -> 8080',
    ],
    ['{{slice .Id 0 12}}', '4f0c2d1e5b6a'],
    ['{{printf "%.12s" .Id}}', '4f0c2d1e5b6a'],
    ['{{.Name}}\\t{{.State.Status}}\\n', '/web\trunning\n'],
  ])('%s', (template, expected) => {
    expect(render(template)).toBe(expected);
  });

  test('json of a struct keeps the order of its fields and leaves out what is not there', () => {
    expect(render('{{json .State}}')).toBe(
      '{"Status":"running","Running":true,"Paused":false,"ExitCode":0,"Pid":4711}',
    );
  });
});

describe('control structures', () => {
  test.each([
    ['{{if .State.Paused}}a{{else if .State.Running}}b{{else}}c{{end}}', 'b'],
    ['{{if .State.Paused}}a{{else if .RestartCount}}b{{else}}c{{end}}', 'c'],
    ['{{if and .State.Running (eq .State.Pid 4711)}}yes{{end}}', 'yes'],
    ['{{range .Mounts}}x{{else}}none{{end}}', 'none'],
    ['{{range .Config.Volumes}}x{{else}}none{{end}}', 'none'],
    ['{{range $i, $e := .Config.Cmd}}{{if $i}},{{end}}{{$e}}{{end}}', 'nginx,-g,daemon off;'],
    ['{{range $e := .Config.Env}}<{{$e}}>{{end}}', '<PATH=/usr/bin:/bin><LANG=C>'],
    ['{{range 3}}{{.}}{{end}}', '012'],
    ['{{range 5}}{{if eq . 1}}{{continue}}{{else if eq . 3}}{{break}}{{end}}{{.}} {{end}}', '0 2 '],
    ['{{range .Config.Env}}{{$.Name}} {{end}}', '/web /web '],
    ['{{with .State}}{{.Status}}{{end}}', 'running'],
    ['{{with .State.Health}}x{{else}}no{{end}}', 'no'],
    ['{{with .State.Health}}x{{else with .State}}{{.Pid}}{{end}}', '4711'],
    ['{{with $n := .Name}}{{$n}}{{.}}{{end}}', '/web/web'],
    ['{{$x := .Name}}{{$x}} {{$x | upper}}', '/web /WEB'],
    ['{{$x := 1}}{{range .Config.Env}}{{$x = .}}{{end}}{{$x}}', 'LANG=C'],
    ['{{$x := 1}}{{if true}}{{$x := 2}}{{$x}}{{end}}{{$x}}', '21'],
    ['{{if not .State.Paused}}{{range .Config.Env}}{{if eq . "LANG=C"}}C{{else}}-{{end}}{{end}}{{end}}', '-C'],
  ])('%s', (template, expected) => {
    expect(render(template)).toBe(expected);
  });
});

describe('text', () => {
  test.each([
    ['', ''],
    ['plain', 'plain'],
    ['a } }} b', 'a } }} b'],
    ['a  {{- .Name -}}  b', 'a/webb'],
    ['{{.Name -}}\\n  {{- .Name}}', '/web/web'],
    ['{{- /* a comment */ -}} x', 'x'],
    ['a {{/* {{.Foo}} */}}b', 'a b'],
    ['{{"a\\tb\\n\\"c\\" \\u00e9"}}', 'a\tb\n"c" é'],
    ['{{`raw \\t "x" }}`}}', 'raw \\t "x" }}'],
    ['{{-3}} {{- 4}}', '-34'],
  ])('%j', (template, expected) => {
    expect(render(template)).toBe(expected);
  });

  test('one parsed template serves many values', () => {
    const template = new Template('{{$n := .N}}{{range .L}}{{.}}{{$n}} {{end}}');
    expect(template.render({ N: 1, L: ['a', 'b'] })).toBe('a1 b1 ');
    expect(template.render({ N: 2, L: [] })).toBe('');
  });
});

describe('functions', () => {
  test.each([
    ['{{eq 1 1}} {{eq "a" "b"}} {{eq 3 1 2 3}} {{ne 1 2}}', 'true false true true'],
    ['{{lt 1 2}} {{le 2 2}} {{gt "b" "a"}} {{ge 1 2}}', 'true true true false'],
    ['{{and 1 0 2}} {{and 1 2}} {{or 0 "" 3}} {{or 0 ""}} {{not 0}}', '0 2 3  true'],
    ['{{or true .Nothing}}', 'true'],
    ['{{0 | and 1}}', '0'],
    ['{{print 1 2 "a" "b" 3}}', '1 2ab3'],
    ['{{println "a" "b"}}', 'a b\n'],
    [
      '{{printf "%s|%5d|%-5s|%05d|%q|%v|%t|%x|%.2f|%%" "a" 42 "b" 7 "q" .Config.Env true 255 1.5}}',
      'a|   42|b    |00007|"q"|[PATH=/usr/bin:/bin LANG=C]|true|ff|1.50|%',
    ],
    ['{{printf "%d" "x"}} {{printf "%s"}} {{printf "a" 1}}', '%!d(string=x) %!s(MISSING) a%!(EXTRA int=1)'],
    ['{{.Name | printf "%s-%s" "x"}}', 'x-/web'],
    ['{{upper "abc"}} {{lower "ABC"}} {{title "hello my-world"}}', 'ABC abc Hello My-World'],
    ['{{truncate "abcdef" 3}} {{truncate "ab" 3}}', 'abc ab'],
    ['[{{pad "x" 2 1}}] [{{pad "" 2 1}}]', '[  x ] []'],
    ['{{index (split "a,b,c" ",") 1}}', 'b'],
    ['{{join (split "a,b" ",") "+"}}', 'a+b'],
    ['{{json (split "a,b" ",")}}', '["a","b"]'],
    ['{{index .Config.Cmd 1}} {{slice "abcdef" 2}} {{slice .Config.Cmd 0 1}}', '-g cdef [nginx]'],
    ['{{true}} {{false}} {{1.5}} {{0x10}} {{1e3}}', 'true false 1.5 16 1000'],
    ['{{len .Config.Volumes}}', '0'],
    ['{{.State.Paused | not | json}}', 'true'],
  ])('%s', (template, expected) => {
    expect(render(template)).toBe(expected);
  });

  test('a function in the data is a method', () => {
    const data = { Label: (key: string) => `<${key}>`, Now: () => 'now' };
    expect(renderTemplate('{{.Label "a.b"}} {{"c" | .Label}} {{upper (.Label "x")}} {{.Now}}', data)).toBe(
      '<a.b> <c> <X> now',
    );
  });
});

describe('errors', () => {
  test.each([
    ['{{.Foo}}', 'template: :1:2: executing "" at <.Foo>: can\'t evaluate field Foo. Use one of: Config, Id, Mounts,'],
    [
      '{{.State.Foo}}',
      'template: :1:8: executing "" at <.State.Foo>: can\'t evaluate field Foo. Use one of: ExitCode,',
    ],
    [
      'a\n  {{.State.Status.X}}',
      'template: :2:10: executing "" at <.State.Status.X>: can\'t evaluate field X in type string',
    ],
    ['{{.State.Health.Status}}', '<.State.Health.Status>: nil pointer evaluating .State.Health.Status'],
    [
      '{{index .Config.Cmd 7}}',
      'template: :1:2: executing "" at <index .Config.Cmd 7>: error calling index: index out of range: 7',
    ],
    [
      '{{range $p, $conf := .NetworkSettings.Ports}}{{(index $conf 0).HostPort}}{{end}}',
      'template: :1:48: executing "" at <index $conf 0>: error calling index: index out of range: 0',
    ],
    ['{{join .Name ","}}', 'error calling join: wrong type for value; expected []string; got string'],
    ['{{upper 1}}', 'error calling upper: wrong type for value; expected string; got int'],
    ['{{upper}}', 'wrong number of args for upper: want 1 got 0'],
    ['{{eq 1 "a"}}', 'error calling eq: incompatible types for comparison'],
    ['{{lt true false}}', 'error calling lt: invalid type for comparison'],
    ['{{.Name "x"}}', 'executing "" at <.Name>: Name has arguments but cannot be invoked as function'],
    ['{{range .Name}}{{end}}', "range can't iterate over /web"],
    ['{{$x}}', 'undefined variable "$x"'],
    ['{{.Name', 'template: :1: unclosed action'],
    ['{{foo .Name}}', 'template: :1: function "foo" not defined'],
    ['{{if .Name}}x', 'template: :1: unexpected EOF'],
    ['\n{{end}}', 'template: :2: unexpected {{end}}'],
    ['{{if .Name}}{{else}}{{else}}{{end}}', 'expected end; found {{else}}'],
    ['{{range .Mounts}}{{else}}{{break}}{{end}}', 'template: :1: {{break}} outside {{range}}'],
    ['{{}}', 'template: :1: missing value for command'],
    ['{{if}}x{{end}}', 'template: :1: missing value for if'],
    ['{{.Name | }}', 'missing value for command'],
    ['{{(index .Config.Cmd 0}}', 'unclosed left paren'],
    ['{{.Name)}}', 'unexpected ")" in command'],
    ['{{"abc}}', 'unterminated quoted string'],
    ["{{index .Config.Labels 'tier'}}", 'unexpected "\'" in action'],
    ['{{template "x"}}', 'function "template" not defined'],
  ])('%s', (template, message) => {
    let error: unknown;
    try {
      render(template);
    } catch (caught) {
      error = caught;
    }
    expect(error).toBeInstanceOf(MinirunError);
    expect((error as MinirunError).message).toStartWith('template parsing error: template: :');
    expect((error as MinirunError).message).toContain(message);
  });

  test('a broken template is refused before any value is seen', () => {
    expect(() => new Template('{{.A}} {{nope .B}}')).toThrow('function "nope" not defined');
  });

  test('what an object inherits is not a field of it', () => {
    expect(render('{{.Config.Labels.toString}}')).toBe('<no value>');
    expect(render('{{index .Config.Labels "constructor"}}')).toBe('');
  });
});
