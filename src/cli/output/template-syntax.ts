import { MinirunError } from '../../errors.ts';

/** A part of a parsed template. */
export type TemplateNode =
  | { readonly kind: 'text'; readonly text: string }
  | { readonly kind: 'action'; readonly pipeline: Pipeline }
  | { readonly kind: 'break' | 'continue' }
  | {
      readonly kind: 'if' | 'range' | 'with';
      readonly pipeline: Pipeline;
      readonly body: readonly TemplateNode[];
      readonly otherwise: readonly TemplateNode[];
    };

/** `$x := command | command`: each command gets the result of the one before it as its last argument. */
export interface Pipeline {
  /** Variables that take the result: one, or for `range` up to two (key and element). */
  readonly variables: readonly string[];
  /** True for `:=`, which makes new variables; false for `=`, which changes existing ones. */
  readonly declares: boolean;
  readonly commands: readonly Command[];
}

/** A function or method with its arguments, or a single value. */
export interface Command {
  readonly operands: readonly [Operand, ...Operand[]];
  /** The command as it is written in the template. */
  readonly source: string;
}

/** A value in a command, with the fields that are taken from it: `.A.B`, `$x.A`, `(index .A 0).B`. */
export interface Operand {
  readonly term:
    | { readonly kind: 'dot' }
    | { readonly kind: 'literal'; readonly value: string | number | boolean | null }
    | { readonly kind: 'function'; readonly name: string }
    | { readonly kind: 'variable'; readonly name: string }
    | { readonly kind: 'pipeline'; readonly pipeline: Pipeline };
  readonly fields: readonly string[];
  /** The offset that Go names in errors about this operand. */
  readonly at: number;
  /** The operand as it is written in the template. */
  readonly source: string;
}

type TokenKind = 'field' | 'number' | 'dot' | 'variable' | 'word' | 'string' | 'mark';

interface Token {
  readonly kind: TokenKind;
  readonly text: string;
  readonly at: number;
}

/** Literal text, or the tokens between `{{` and `}}`. */
type Piece = { readonly text: string } | { readonly tokens: readonly Token[]; readonly at: number };

const SPACE = /[ \t\r\n]+/y;
const COMMENT = /[ \t\r\n]*\/\*[^]*?\*\/(?:([ \t\r\n]+-)|[ \t\r\n]*)\}\}/y;
const CLOSE = /(?:([ \t\r\n]+-)|[ \t\r\n]*)\}\}/y;
const TOKENS: readonly (readonly [TokenKind, RegExp])[] = [
  ['field', /\.[\p{L}_][\p{L}\p{N}_]*/uy],
  ['number', /[+-]?(?:0[xX][\da-fA-F]+|\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)/y],
  ['dot', /\./y],
  ['variable', /\$[\p{L}\p{N}_]*/uy],
  ['word', /[\p{L}_][\p{L}\p{N}_]*/uy],
  ['string', /"(?:[^"\\\n]|\\.)*"|`[^`]*`/y],
  ['mark', /:=|[=|(),]/y],
];

/** The error for a template that cannot be read, in the words of Go and Docker. */
function syntaxError(source: string, at: number, reason: string): MinirunError {
  const line = source.slice(0, at).split('\n').length;
  return new MinirunError('template parsing error', `template: :${line}: ${reason}`);
}

function matchAt(pattern: RegExp, source: string, at: number): RegExpExecArray | null {
  pattern.lastIndex = at;
  return pattern.exec(source);
}

function tokenise(source: string): Piece[] {
  const pieces: Piece[] = [];
  let at = 0;
  let trimsLeft = false;
  for (;;) {
    const open = source.indexOf('{{', at);
    const end = open === -1 ? source.length : open;
    const trimsRight = /^\{\{-[ \t\r\n]/.test(source.slice(end, end + 4));
    // Like Docker, which lets a shell user write \t and \n; before trimming, so that {{- also removes these.
    let text = source.slice(at, end).replaceAll('\\t', '\t').replaceAll('\\n', '\n');
    if (trimsLeft) text = text.replace(/^[ \t\r\n]+/, '');
    if (trimsRight) text = text.replace(/[ \t\r\n]+$/, '');
    if (text !== '') pieces.push({ text });
    if (open === -1) return pieces;

    at = open + (trimsRight ? 3 : 2);
    const comment = matchAt(COMMENT, source, at);
    if (comment !== null) {
      trimsLeft = comment[1] !== undefined;
      at += comment[0].length;
      continue;
    }
    const tokens: Token[] = [];
    let close = matchAt(CLOSE, source, at);
    while (close === null) {
      at += matchAt(SPACE, source, at)?.[0].length ?? 0;
      const token = nextToken(source, at);
      tokens.push(token);
      at += token.text.length;
      close = matchAt(CLOSE, source, at);
    }
    trimsLeft = close[1] !== undefined;
    at += close[0].length;
    pieces.push({ tokens, at: open });
  }
}

function nextToken(source: string, at: number): Token {
  for (const [kind, pattern] of TOKENS) {
    const match = matchAt(pattern, source, at);
    if (match !== null) return { kind, text: match[0], at };
  }
  const [character] = source.slice(at);
  if (character === undefined) throw syntaxError(source, at, 'unclosed action');
  if (character === '"') throw syntaxError(source, at, 'unterminated quoted string');
  if (character === '`') throw syntaxError(source, at, 'unterminated raw quoted string');
  throw syntaxError(source, at, `unexpected "${character}" in action`);
}

const ESCAPES: Readonly<Record<string, string>> = {
  a: '\x07',
  b: '\b',
  f: '\f',
  n: '\n',
  r: '\r',
  t: '\t',
  v: '\v',
};

/** The text that a quoted or raw Go string stands for. */
function unquote(literal: string): string {
  const body = literal.slice(1, -1);
  if (literal.startsWith('`')) return body;
  return body.replace(
    /\\(?:x([\da-fA-F]{2})|u([\da-fA-F]{4})|U([\da-fA-F]{8})|(.))/g,
    (_all, x?: string, u?: string, long?: string, other?: string) =>
      other === undefined
        ? String.fromCodePoint(Number.parseInt(x ?? u ?? long ?? '0', 16))
        : (ESCAPES[other] ?? other),
  );
}

/**
 * Parses a Go template into a tree.
 *
 * @param functions names that may be called; any other word is an error, as in Go, before anything is printed
 */
export function parseTemplate(source: string, functions: ReadonlySet<string>): readonly TemplateNode[] {
  return new Parser(source, functions).parse();
}

class Parser {
  readonly #pieces: readonly Piece[];
  #next = 0;
  /** How many `range` blocks are open. */
  #ranges = 0;

  constructor(
    readonly source: string,
    readonly functions: ReadonlySet<string>,
  ) {
    this.#pieces = tokenise(source);
  }

  parse(): readonly TemplateNode[] {
    const { nodes, stop } = this.#list();
    if (stop !== undefined) throw syntaxError(this.source, stop.at, `unexpected {{${stop.word}}}`);
    return nodes;
  }

  /** Nodes up to the `else` or `end` that belongs to an enclosing block, which is handed back. */
  #list(): { nodes: TemplateNode[]; stop?: { word: string; at: number; rest: readonly Token[] } } {
    const nodes: TemplateNode[] = [];
    for (;;) {
      const piece = this.#pieces[this.#next];
      if (piece === undefined) return { nodes };
      this.#next += 1;
      if ('text' in piece) {
        nodes.push({ kind: 'text', text: piece.text });
        continue;
      }
      const [first, ...rest] = piece.tokens;
      const word = first?.kind === 'word' ? first.text : undefined;
      if (word === 'else' || word === 'end') return { nodes, stop: { word, at: piece.at, rest } };
      if (word === 'break' || word === 'continue') {
        if (this.#ranges === 0) throw syntaxError(this.source, piece.at, `{{${word}}} outside {{range}}`);
        nodes.push({ kind: word });
      } else if (word === 'if' || word === 'range' || word === 'with') nodes.push(this.#block(word, rest, piece.at));
      else nodes.push({ kind: 'action', pipeline: this.#pipeline(piece.tokens, 1, 'command', piece.at) });
    }
  }

  #block(kind: 'if' | 'range' | 'with', tokens: readonly Token[], at: number): TemplateNode {
    const pipeline = this.#pipeline(tokens, kind === 'range' ? 2 : 1, kind, at);
    this.#ranges += Number(kind === 'range');
    const { nodes: body, stop } = this.#list();
    this.#ranges -= Number(kind === 'range');
    if (stop === undefined) throw syntaxError(this.source, this.source.length, 'unexpected EOF');
    if (stop.word === 'end') return { kind, pipeline, body, otherwise: [] };
    const [next, ...rest] = stop.rest;
    if (next !== undefined && (next.text === 'if' || next.text === 'with')) {
      // `{{else if}}` is a block inside the else, and its {{end}} closes both.
      return { kind, pipeline, body, otherwise: [this.#block(next.text, rest, stop.at)] };
    }
    if (next !== undefined) throw syntaxError(this.source, next.at, `unexpected "${next.text}" in else`);
    const { nodes: otherwise, stop: end } = this.#list();
    if (end === undefined) throw syntaxError(this.source, this.source.length, 'unexpected EOF');
    if (end.word !== 'end') throw syntaxError(this.source, end.at, 'expected end; found {{else}}');
    return { kind, pipeline, body, otherwise };
  }

  #pipeline(tokens: readonly Token[], mostVariables: number, context: string, at: number): Pipeline {
    const reader = new TokenReader(tokens);
    const pipeline = this.#readPipeline(reader, mostVariables, context, at);
    const left = reader.peek();
    if (left !== undefined) throw syntaxError(this.source, left.at, `unexpected "${left.text}" in ${context}`);
    return pipeline;
  }

  #readPipeline(reader: TokenReader, mostVariables: number, context: string, at: number): Pipeline {
    const { variables, declares } = readVariables(reader, mostVariables);
    const commands: Command[] = [];
    do {
      const start = reader.peek()?.at;
      const [first, ...rest] = this.#operands(reader);
      if (first === undefined) throw syntaxError(this.source, at, `missing value for ${context}`);
      commands.push({ operands: [first, ...rest], source: this.source.slice(start, reader.end) });
    } while (reader.accept('|'));
    return { variables, declares, commands };
  }

  #operands(reader: TokenReader): Operand[] {
    const operands: Operand[] = [];
    for (;;) {
      const token = reader.peek();
      if (token === undefined || token.text === '|' || token.text === ')') return operands;
      operands.push(this.#operand(reader));
    }
  }

  #operand(reader: TokenReader): Operand {
    const first = reader.take();
    const term = this.#term(first, reader);
    const fields: Token[] = first.kind === 'field' ? [first] : [];
    for (let end = reader.end; reader.peek()?.kind === 'field' && reader.peek()?.at === end; end = reader.end) {
      fields.push(reader.take());
    }
    // Go counts `.A.B` from its second field, the first one that is taken from another value.
    const at = (first.kind === 'field' ? fields[1] : fields[0])?.at ?? first.at;
    return {
      term,
      fields: fields.map((field) => field.text.slice(1)),
      at,
      source: this.source.slice(first.at, reader.end),
    };
  }

  #term(token: Token, reader: TokenReader): Operand['term'] {
    switch (token.kind) {
      case 'dot':
      case 'field':
        return { kind: 'dot' };
      case 'number':
        return { kind: 'literal', value: Number(token.text) };
      case 'string':
        return { kind: 'literal', value: unquote(token.text) };
      case 'variable':
        return { kind: 'variable', name: token.text };
      case 'word':
        if (token.text === 'true' || token.text === 'false') return { kind: 'literal', value: token.text === 'true' };
        if (token.text === 'nil') return { kind: 'literal', value: null };
        if (this.functions.has(token.text)) return { kind: 'function', name: token.text };
        throw syntaxError(this.source, token.at, `function "${token.text}" not defined`);
      case 'mark': {
        if (token.text !== '(') throw syntaxError(this.source, token.at, `unexpected "${token.text}" in operand`);
        const pipeline = this.#readPipeline(reader, 1, 'parenthesized pipeline', token.at);
        if (!reader.accept(')')) throw syntaxError(this.source, token.at, 'unclosed left paren');
        return { kind: 'pipeline', pipeline };
      }
    }
  }
}

/** `$x :=`, `$k, $v :=` or `$x =` at the start of a pipeline, if there is one. */
function readVariables(reader: TokenReader, most: number): { variables: string[]; declares: boolean } {
  for (let count = most; count > 0; count -= 1) {
    // Variables and commas in turn, then the sign: $k , $v :=
    const tokens = reader.ahead(2 * count);
    const sign = tokens.at(-1)?.text;
    const fits = tokens
      .slice(0, -1)
      .every((token, index) => (index % 2 === 0 ? token.kind === 'variable' : token.text === ','));
    if (tokens.length === 2 * count && fits && (sign === ':=' || sign === '=')) {
      for (const _ of tokens) reader.take();
      return {
        variables: tokens.filter(({ kind }) => kind === 'variable').map(({ text }) => text),
        declares: sign === ':=',
      };
    }
  }
  return { variables: [], declares: false };
}

class TokenReader {
  #next = 0;
  /** Where the token that was taken last ends. */
  end = 0;

  constructor(readonly tokens: readonly Token[]) {}

  peek(): Token | undefined {
    return this.tokens[this.#next];
  }

  ahead(count: number): readonly Token[] {
    return this.tokens.slice(this.#next, this.#next + count);
  }

  take(): Token {
    const token = this.tokens[this.#next];
    if (token === undefined) throw new Error('a token was taken after the last one');
    this.#next += 1;
    this.end = token.at + token.text.length;
    return token;
  }

  accept(mark: string): boolean {
    const token = this.peek();
    if (token?.kind !== 'mark' || token.text !== mark) return false;
    this.take();
    return true;
  }
}
