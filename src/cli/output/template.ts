import { MinirunError } from '../../errors.ts';
import { CallError, type TemplateFunction, templateFunctions } from './template-functions.ts';
import { type Command, type Operand, parseTemplate, type Pipeline, type TemplateNode } from './template-syntax.ts';
import { entriesOf, formatValue, isFields, isStruct, isTrue, typeName } from './template-values.ts';

/** Everything a template may call. */
const CALLABLE: ReadonlySet<string> = new Set(['and', 'or', ...Object.keys(templateFunctions)]);

/** A parsed Go template, ready to be filled with any number of values. */
export class Template {
  readonly #nodes: readonly TemplateNode[];

  constructor(readonly source: string) {
    this.#nodes = parseTemplate(source, CALLABLE);
  }

  /** The template's text for one value; see `renderTemplate`. */
  render(data: unknown, functions: Readonly<Record<string, TemplateFunction>> = templateFunctions): string {
    return new Execution(this.source, functions, data).run(this.#nodes, data);
  }
}

/**
 * Fills a Go text/template, as Docker's `--format` takes it, with a value.
 *
 * `\t` and `\n` outside of `{{ }}` stand for a tab and a newline. A function in the data is a method. An object whose
 * keys are all capitalised is a struct, where an unknown field is an error; any other object is a map, where an unknown
 * key is `<no value>`. A field that is present with the value `undefined` or `null` is nil: an optional field that a
 * template may ask for must be present.
 */
export function renderTemplate(template: string, data: unknown): string {
  return new Template(template).render(data);
}

type Block = Extract<TemplateNode, { body: unknown }>;
type Jump = 'break' | 'continue';

class Execution {
  #output = '';
  /** Variables from the outermost to the innermost; the later one of the same name wins. */
  readonly #variables: { name: string; value: unknown }[];

  constructor(
    readonly source: string,
    readonly functions: Readonly<Record<string, TemplateFunction>>,
    root: unknown,
  ) {
    this.#variables = [{ name: '$', value: root }];
  }

  run(nodes: readonly TemplateNode[], dot: unknown): string {
    this.#list(nodes, dot);
    return this.#output;
  }

  /** Writes the nodes' text, up to the `break` or `continue` that was met, if any. */
  #list(nodes: readonly TemplateNode[], dot: unknown): Jump | undefined {
    for (const node of nodes) {
      const jump = this.#node(node, dot);
      if (jump !== undefined) return jump;
    }
    return undefined;
  }

  #node(node: TemplateNode, dot: unknown): Jump | undefined {
    switch (node.kind) {
      case 'text':
        this.#output += node.text;
        return undefined;
      case 'action': {
        const value = this.#assigned(node.pipeline, dot);
        if (node.pipeline.variables.length === 0) this.#output += formatValue(value);
        return undefined;
      }
      case 'break':
      case 'continue':
        return node.kind;
      default: {
        const outer = this.#variables.length;
        const jump = this.#block(node, dot);
        this.#variables.length = outer;
        return jump;
      }
    }
  }

  #block(node: Block, dot: unknown): Jump | undefined {
    if (node.kind === 'range') return this.#range(node, dot);
    const value = this.#assigned(node.pipeline, dot);
    if (!isTrue(value)) return this.#list(node.otherwise, dot);
    return this.#list(node.body, node.kind === 'with' ? value : dot);
  }

  #range(node: Block, dot: unknown): Jump | undefined {
    const value = this.#value(node.pipeline, dot);
    const entries = this.#entries(value, node.pipeline);
    if (entries.length === 0) return this.#list(node.otherwise, dot);
    const { variables, declares } = node.pipeline;
    const outer = this.#variables.length;
    for (const [key, element] of entries) {
      this.#variables.length = outer;
      const [first, second] = variables;
      if (first !== undefined) this.#set(first, second === undefined ? element : key, declares);
      if (second !== undefined) this.#set(second, element, declares);
      if (this.#list(node.body, element) === 'break') break;
    }
    return undefined;
  }

  #entries(value: unknown, pipeline: Pipeline): readonly (readonly [unknown, unknown])[] {
    if (value === null || value === undefined) return [];
    if (Array.isArray(value)) return value.map((element, index) => [index, element ?? null] as const);
    // Also for what looks like a struct: it may be a map whose keys happen to be capitalised.
    if (isFields(value)) return entriesOf(value).map(([key, element]) => [key, element ?? null] as const);
    if (Number.isInteger(value)) return Array.from({ length: value as number }, (_, index) => [index, index] as const);
    const operand = pipeline.commands[0]?.operands[0];
    throw this.#error(operand, `range can't iterate over ${formatValue(value)}`);
  }

  #set(name: string, value: unknown, declares: boolean): void {
    if (declares) this.#variables.push({ name, value });
    else this.#variable(name).value = value;
  }

  #variable(name: string): { name: string; value: unknown } {
    const variable = this.#variables.findLast((candidate) => candidate.name === name);
    if (variable !== undefined) return variable;
    throw this.#error(undefined, `undefined variable "${name}"`);
  }

  #assigned(pipeline: Pipeline, dot: unknown): unknown {
    const value = this.#value(pipeline, dot);
    for (const name of pipeline.variables) this.#set(name, value, pipeline.declares);
    return value;
  }

  #value(pipeline: Pipeline, dot: unknown): unknown {
    return pipeline.commands.reduce<readonly unknown[]>(
      (piped, command) => [this.#command(command, dot, piped)],
      [],
    )[0];
  }

  #command(command: Command, dot: unknown, piped: readonly unknown[]): unknown {
    const [first, ...rest] = command.operands;
    if (first.term.kind === 'function' && (first.term.name === 'and' || first.term.name === 'or')) {
      return this.#decide(first.term.name, rest, dot, piped, first);
    }
    const args = (): unknown[] => [...rest.map((operand) => this.#operand(operand, dot)), ...piped];
    return this.#operand(first, dot, args, command.source);
  }

  /** `and` and `or`: the first argument that decides; the ones after it are not evaluated. */
  #decide(
    name: 'and' | 'or',
    operands: readonly Operand[],
    dot: unknown,
    piped: readonly unknown[],
    at: Operand,
  ): unknown {
    let value: unknown;
    if (operands.length + piped.length === 0)
      throw this.#error(at, `wrong number of args for ${name}: want at least 1 got 0`);
    for (const operand of operands) {
      value = this.#operand(operand, dot);
      if (isTrue(value) === (name === 'or')) return value;
    }
    return piped.length > 0 ? piped[0] : value;
  }

  /**
   * The operand's value, after a call when it names a function or a method.
   *
   * @param source what Go names in errors of a call: the whole command
   */
  #operand(
    operand: Operand,
    dot: unknown,
    argumentsOf: () => readonly unknown[] = () => [],
    source = operand.source,
  ): unknown {
    const { term, fields } = operand;
    if (term.kind === 'function') {
      const result = this.#call({ ...operand, source }, term.name, argumentsOf());
      return fields.reduce((value: unknown, _name, index) => this.#field(operand, value, index), result);
    }
    let value = this.#term(term, dot);
    for (const index of fields.keys()) {
      const receiver = value;
      value = this.#field(operand, receiver, index);
      if (typeof value === 'function') {
        const args = index === fields.length - 1 ? argumentsOf() : [];
        return Reflect.apply(value, receiver, args);
      }
    }
    const args = argumentsOf();
    if (args.length > 0)
      throw this.#error(operand, `${fields.at(-1) ?? operand.source} has arguments but cannot be invoked as function`);
    return value;
  }

  #term(term: Exclude<Operand['term'], { kind: 'function' }>, dot: unknown): unknown {
    switch (term.kind) {
      case 'dot':
        return dot;
      case 'literal':
        return term.value;
      case 'variable':
        return this.#variable(term.name).value;
      case 'pipeline':
        return this.#value(term.pipeline, dot);
    }
  }

  #field(operand: Operand, receiver: unknown, index: number): unknown {
    const name = operand.fields[index] ?? '';
    // Go, too, goes on silently after a missing key of a map, but not after a nil pointer.
    if (receiver === undefined) return undefined;
    if (receiver === null) {
      throw this.#error(operand, `nil pointer evaluating ${['', ...operand.fields.slice(0, index + 1)].join('.')}`);
    }
    if (!isFields(receiver)) throw this.#error(operand, `can't evaluate field ${name} in type ${typeName(receiver)}`);
    if (Object.hasOwn(receiver, name)) return receiver[name] ?? null;
    if (!isStruct(receiver)) return undefined;
    throw this.#error(
      operand,
      `can't evaluate field ${name}`,
      `Use one of: ${Object.keys(receiver).toSorted().join(', ')}`,
    );
  }

  #call(operand: Operand, name: string, args: readonly unknown[]): unknown {
    const called = this.functions[name];
    if (called === undefined) throw this.#error(operand, `function "${name}" not defined`);
    if (args.length < called.least || args.length > called.most) {
      const want = called.least === called.most ? String(called.least) : `at least ${called.least}`;
      throw this.#error(operand, `wrong number of args for ${name}: want ${want} got ${args.length}`);
    }
    try {
      return called.call(...args);
    } catch (error) {
      if (error instanceof CallError) throw this.#error(operand, `error calling ${name}: ${error.message}`);
      throw error;
    }
  }

  #error(operand: Operand | undefined, reason: string, remedy?: string): MinirunError {
    const before = this.source.slice(0, operand?.at ?? 0).split('\n');
    const place = operand === undefined ? ':1' : `:${before.length}:${before.at(-1)?.length ?? 0}`;
    const context = operand === undefined ? '' : ` executing "" at <${operand.source}>:`;
    return new MinirunError('template parsing error', `template: ${place}:${context} ${reason}`, remedy);
  }
}
