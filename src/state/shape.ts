/**
 * What a JSON value has to look like. A look at every file of the state is on the way of every command, so these are plain
 * checks, without a library: some microseconds for a container's state.
 */
export interface Shape {
  /** Where a value is wrong and what should be there: `[2].mac: no text`; undefined when it is right. */
  wrong: (value: unknown) => string | undefined;
  /** What of a wrong value is right all the same; undefined when nothing is. */
  rest?: (value: unknown) => unknown;
}

/** The shape of an object, with each of the fields that it may have. Unknown fields are a later minirun's and pass. */
export interface ObjectShape<T> extends Shape {
  /** The fields that are there and right. */
  rest: (value: unknown) => Partial<T>;
}

/** Every field of a type has to be described. */
type Fields<T> = { [K in keyof T]-?: Shape };

export function object<T extends object>(fields: Fields<T>): ObjectShape<T> {
  const list = Object.entries<Shape>(fields);
  // Two lists and an index: this loop is run some thousand times by commands that look at every container, and hardly ever
  // long enough to be compiled.
  const keys = Object.keys(fields);
  const shapes = Object.values<Shape>(fields);
  return {
    wrong(value) {
      if (!isObject(value)) return ': no object';
      for (let index = 0; index < keys.length; index++) {
        const wrong = (shapes[index] as Shape).wrong(value[keys[index] as string]);
        if (wrong !== undefined) return `.${keys[index]}${wrong}`;
      }
      return undefined;
    },
    rest(value) {
      if (!isObject(value)) return {};
      const parts: Record<string, unknown> = {};
      for (const [key, shape] of list) {
        const field = value[key];
        if (field === undefined) continue;
        const part = shape.wrong(field) === undefined ? field : shape.rest?.(field);
        if (part !== undefined) parts[key] = part;
      }
      return parts as Partial<T>;
    },
  };
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

export const text: Shape = { wrong: (value) => (typeof value === 'string' ? undefined : ': no text') };

/** Text that becomes a part of a path, of a command or of a message as it stands. */
export function textLike(pattern: RegExp): Shape {
  return {
    wrong: (value) =>
      typeof value !== 'string' ? ': no text' : pattern.test(value) ? undefined : ': not of the right form',
  };
}

/** RFC 3339; empty for what has not happened. */
export const time: Shape = {
  wrong: (value) =>
    value === '' || (typeof value === 'string' && value.length < 40 && !Number.isNaN(Date.parse(value)))
      ? undefined
      : ': no time',
};

/** A word of a command: nothing in it that ends a line or a string of C. */
export const word = textLike(/^[^\0\n\r]*$/);

/** An absolute path without a step upwards. */
export const absolutePath = textLike(/^\/(?!(?:.*\/)?\.\.(?:\/|$))[^\0]*$/);

export const number: Shape = { wrong: (value) => (typeof value === 'number' ? undefined : ': no number') };

/** A number of things, or a process. */
export const count: Shape = {
  wrong: (value) => (Number.isSafeInteger(value) && (value as number) >= 0 ? undefined : ': no whole number'),
};

export const flag: Shape = { wrong: (value) => (typeof value === 'boolean' ? undefined : ': neither true nor false') };

/** Only looked at by whoever uses it. */
export const anything: Shape = { wrong: () => undefined };

export function oneOf(...values: readonly unknown[]): Shape {
  return { wrong: (value) => (values.includes(value) ? undefined : `: none of ${values.join(', ')}`) };
}

/** One of the words of a type, all of which have to be given. */
export function wordOf<T extends string>(words: Record<T, true>): Shape {
  return oneOf(...Object.keys(words));
}

export function optional(shape: Shape): Shape {
  return { wrong: (value) => (value === undefined ? undefined : shape.wrong(value)), rest: shape.rest };
}

export function either(one: Shape, other: Shape): Shape {
  return { wrong: (value) => (one.wrong(value) === undefined ? undefined : other.wrong(value)) };
}

/** @param partly whether its right elements are worth something without the wrong ones */
export function listOf(shape: Shape, { partly = false, length }: { partly?: boolean; length?: number } = {}): Shape {
  return {
    wrong(value) {
      if (!Array.isArray(value)) return ': no list';
      if (length !== undefined && value.length !== length) return `: not ${length} elements`;
      for (let index = 0; index < value.length; index++) {
        const wrong = shape.wrong(value[index]);
        if (wrong !== undefined) return `[${index}]${wrong}`;
      }
      return undefined;
    },
    ...(partly
      ? {
          rest: (value) => (Array.isArray(value) ? value.filter((each) => shape.wrong(each) === undefined) : undefined),
        }
      : {}),
  };
}

/** An object whose keys are names of things. The right entries are worth something without the wrong ones. */
export function mapOf(shape: Shape, key: Shape = text): Shape {
  const isRight = ([name, value]: [string, unknown]) =>
    key.wrong(name) === undefined && shape.wrong(value) === undefined;
  return {
    wrong(value) {
      if (!isObject(value)) return ': no object';
      for (const name in value) {
        const wrong = key.wrong(name) ?? shape.wrong(value[name]);
        if (wrong !== undefined) return `.${name.slice(0, 40)}${wrong}`;
      }
      return undefined;
    },
    rest: (value) => (isObject(value) ? Object.fromEntries(Object.entries(value).filter(isRight)) : undefined),
  };
}

/** A process by pid and start time. */
export const processShape = object<{ pid: number; start: number }>({ pid: count, start: count });
