/** JSON as an older minirun wrote it. */
type Json = Record<string, unknown>;

/** Makes the content of a file of one schema that of the next. Pure; what throws was no such content. */
type Migration = (old: unknown) => Json;

/** A kind of file of the state directory. A file without `schema` is of schema 1. */
export interface Kind {
  /** For messages. */
  readonly name: string;
  /** The schema that this minirun writes. */
  readonly schema: number;
  /** What leads there: the first from 1 to 2. */
  readonly migrations: readonly Migration[];
  /** Its files do not say their schema. */
  readonly isUnmarked?: true;
}

function kind(name: string, ...migrations: Migration[]): Kind {
  return { name, schema: migrations.length + 1, migrations };
}

/**
 * Every kind of file that minirun keeps its state in, with its schema and with what makes an older one of it. A kind gets a new
 * schema when a minirun that does not know it would do something wrong with what it says, not for each new field.
 */
export const kinds = {
  /** `schema.json` of the state directory. */
  marker: kind('marker'),
  /** A link in `names/`. */
  name: { ...kind('name'), isUnmarked: true },
  definition: kind('definition', withAttachments),
  /** `config.json` has the version of the runtime spec instead, and is written together with the definition. */
  spec: { ...kind('spec'), isUnmarked: true },
  state: kind('state', withEndpointsOfBothFamilies),
  steps: kind('steps', listAs('steps')),
  renaming: kind('renaming'),
  routes: kind('routes'),
  health: kind('health'),
  network: kind('network', withSubnets),
  ports: kind('ports'),
  ids: kind('ids'),
  owners: kind('owners'),
  link: kind('link'),
  hostRoutes: kind('host routes'),
  changing: kind('change'),
  volume: kind('volume'),
  index: kind('image index', withLayers),
  /** An image's config is of the image-spec, and whoever made the image wrote it. */
  imageConfig: { ...kind('image config'), isUnmarked: true },
  claim: kind('claim'),
  pins: kind('pins', listAs('layers')),
} as const satisfies Record<string, Kind>;

function listAs(key: string): Migration {
  return (old) => {
    if (!Array.isArray(old)) throw new TypeError('no list');
    return { [key]: old };
  };
}

/** One network, and `--ip`, became a list of attachments. */
function withAttachments(old: unknown): Json {
  const { address, ...rest } = old as Json & { network: string; attachments?: unknown };
  const { network, attachments } = rest;
  const hasNone = network === 'none' || network === 'host' || network.startsWith('container:');
  const only = { network, ...(address === undefined ? {} : { ip: address }), aliases: [], gatewayPriority: 0 };
  return { ...rest, attachments: attachments ?? (hasNone ? [] : [only]) };
}

/** An endpoint had one IPv4 address. */
function withEndpointsOfBothFamilies(old: unknown): Json {
  const { endpoints = [], ...rest } = old as Json & { endpoints?: Json[] };
  return {
    ...rest,
    endpoints: endpoints.map((endpoint) => {
      const { address, prefixLength, gateway, ...others } = endpoint;
      if (address === undefined) return endpoint;
      const plain = { driver: 'bridge', routes: [], aliases: [], gatewayPriority: 0, alone: false };
      return { ...plain, ...others, ipv4: { address, prefixLength, gateway } };
    }),
  };
}

/** A network had one IPv4 range, and none of today's choices. */
function withSubnets(old: unknown): Json {
  const { subnet, gateway, last, ...rest } = old as Json & { subnet?: string };
  if (subnet === undefined) return rest;
  return {
    ...rest,
    routes: [],
    internal: false,
    isolate: true,
    masquerade: true,
    icc: true,
    hostAddress: true,
    subnets: [{ subnet, gateway }],
    last: last === undefined ? {} : { [subnet]: last },
  };
}

/** Layers had no records. */
function withLayers(old: unknown): Json {
  return { layers: {}, ...(old as Json) };
}
