import { instance } from '@viz-js/viz';
import type { Topology } from '../../../network/topology.ts';
import { fontName, renderDot } from './dot.ts';

/** Fonts with the widths that Graphviz has reckoned with, before any other that a machine may have. */
const fonts = `Helvetica,${fontName},Liberation Sans,Arimo,Nimbus Sans,sans-serif`;

/** The picture as an SVG document, drawn by Graphviz, which is in the binary as WebAssembly. */
export async function renderSvg(topology: Topology): Promise<string> {
  const viz = await instance();
  const svg = viz.renderString(renderDot(topology), { format: 'svg', engine: 'dot' });
  // In text a quotation mark and `<` are entities: this finds attributes and elements only. The titles are Graphviz's
  // names of nodes, which browsers would show under the pointer.
  return svg
    .replaceAll(`font-family="${fontName}"`, `font-family="${fonts}"`)
    .replaceAll(/<title>[^<]*<\/title>\n/g, '');
}
