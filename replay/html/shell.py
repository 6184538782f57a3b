"""The page of the dashboard without its contents: style, script, and the Jinja template around Bokeh's models.

In go pieces of HTML that are escaped already, and the models by name; the script writes texts as texts, never as
markup.
"""

from __future__ import annotations

from typing import Final

STYLE: Final = """
:root { color-scheme: light }
body { font: 15px/1.45 system-ui, "Segoe UI", "DejaVu Sans", sans-serif; color: #1c2733; background: #f3f5f8 }
main { max-width: 1180px; margin: 0 auto; padding: 1.2rem }
h1 { font-size: 1.5rem; margin: .2rem 0 1rem; overflow-wrap: anywhere }
h2 { font-size: 1.1rem; margin: 0 0 .6rem }
h3 { font-size: .95rem; margin: .8rem 0 .3rem; color: #4c5b6b }
section { background: #fff; border: 1px solid #dfe4ea; border-radius: 8px; padding: 1rem; margin-bottom: 1rem }
.numbers { display: flex; flex-wrap: wrap; gap: .7rem; margin-bottom: 1rem }
.number { background: #fff; border: 1px solid #dfe4ea; border-radius: 8px; padding: .6rem 1rem }
.number b { display: block; font-size: 1.35rem }
.number span { color: #4c5b6b; font-size: .85rem }
.bad b { color: #c8372d } .good { color: #1d7a3c }
.two { display: grid; grid-template-columns: repeat(auto-fit, minmax(420px, 1fr)); gap: 1rem }
.two > * { min-width: 0 }
table { border-collapse: collapse; width: 100%; font-size: .87rem; font-variant-numeric: tabular-nums }
th { text-align: left; color: #4c5b6b; font-weight: 600 }
th, td { padding: .2rem .6rem .2rem 0; border-bottom: 1px solid #edf0f3; vertical-align: top }
td { overflow-wrap: break-word }
td:first-child { min-width: 9rem }
.right { text-align: right; white-space: nowrap }
a { color: #2f6db3 }
#run td:first-child { width: 16rem; color: #4c5b6b }
.scroll { overflow-x: auto; max-height: 28rem; overflow-y: auto }
footer, .hint { color: #6a7885; font-size: .85rem }
"""

SCRIPT: Final = """
window.showRun = (data, at, facts) => {
  const units = ["bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"]
  const size = (bytes) => {
    let value = bytes, unit = 0
    while (Math.abs(value) >= 1024 && unit < units.length - 1) { value /= 1024; unit += 1 }
    const exact = bytes.toLocaleString("en") + " bytes"
    return unit ? exact + " (" + value.toFixed(1) + " " + units[unit] + ")" : exact
  }
  const words = (value, unit) => {
    if (typeof value === "string") return value || "–"
    if (value == null || Number.isNaN(value)) return "–"
    if (unit === "bytes") return size(value)
    if (unit === "ns") return (value / 1e9).toLocaleString("en", {maximumFractionDigits: 6}) + " s"
    if (unit === "ratio") return value.toPrecision(4)
    return value.toLocaleString("en")
  }
  const table = document.createElement("table")
  for (const fact of facts) {
    const row = table.insertRow()
    row.title = fact.meaning
    row.insertCell().textContent = fact.name === "of_version" ? "version" : fact.name
    row.insertCell().textContent = words(data[fact.name][at], fact.unit)
  }
  document.getElementById("chosen").replaceChildren(table)
  if (!data.page[at]) return
  const link = document.createElement("a")
  link.href = data.page[at]
  link.textContent = "its address space over time"
  table.before(link)
}
document.addEventListener("click", (event) => {
  const at = event.target.dataset && event.target.dataset.run
  if (at === undefined) return
  const source = Bokeh.documents[0].get_model_by_name("runs").source
  source.selected.indices = [Number(at)]
})
"""

TEMPLATE: Final = """
{% block preamble %}<meta http-equiv="Content-Security-Policy" content="{{ policy }}">
<meta name="viewport" content="width=device-width, initial-scale=1">{% endblock %}
{% block postamble %}<style>{{ style }}</style><script>{{ script }}</script>{% endblock %}
{% block contents %}
<main>
<h1>{{ heading }}</h1>
<div class="numbers">{{ numbers }}</div>
<section><h2>Runs with failed breaks</h2>
<div class="scroll">{{ failing }}</div>
{% if "causes" in made %}<div class="two"><div><h3>Why: runs by cause</h3>{{ embed(roots.causes) }}</div>
<div><h3>Who is in the way</h3>{{ embed(roots.blockers) }}</div></div>{% endif %}
</section>
{% if "fallbacks" in made %}<section><h2>Fallbacks to mmap by program</h2>
{{ embed(roots.fallbacks) }}</section>{% endif %}
<section><h2>Footprint over runs</h2>
<p class="hint">● peak mapped, □ peak of the brk area; red: the break failed. A click on a point chooses the run below;
the mouse wheel zooms this chart and the next.</p>
{{ embed(roots.footprint) }}
{% if "footprint_versions" in made %}<h3>By version: median and middle half</h3>
{{ embed(roots.footprint_versions) }}{% endif %}
</section>
<section><h2>Fragmentation over runs</h2>
<p class="hint">● of the heap, where the log has malloc calls; □ of the address space.
0: all that is free lies together.</p>
{{ embed(roots.fragmentation) }}
{% if "fragmentation_versions" in made %}<h3>Heap, by version: median and middle half</h3>
{{ embed(roots.fragmentation_versions) }}{% endif %}
</section>
<section><h2>The worst ten</h2>
<h3>Largest footprint</h3><div class="scroll">{{ largest }}</div>
<h3>Most fragmented</h3><div class="scroll">{{ fragmented }}</div></section>
<section><h2>All runs</h2>{{ left_out }}
<p class="hint">A click on a heading sorts, a click on a row shows all that is known of the run.</p>
{{ embed(roots.runs) }}</section>
<section id="run"><h2>The chosen run</h2><div id="chosen"><p class="hint">None is chosen yet.</p></div></section>
{% if errors %}<section><h2>Logs that could not be read</h2><div class="scroll">{{ errors }}</div></section>{% endif %}
<footer>{{ footer }}</footer>
</main>
{% endblock %}
"""
