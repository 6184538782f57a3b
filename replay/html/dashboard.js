// What the page shows of the runs that its filters leave: groups of failures, what moved, charts, the runs, one of them.
// Texts of logs are only ever set as text, never as markup.
"use strict"
const fleet = JSON.parse(document.getElementById("fleet").textContent)
const MOST_ROWS = 200, TIME_GROUPS = 30
const state = { x: fleet.first, chosen: null, group: null, sort: "brk_failures", down: true, filters: {}, text: "" }

const column = (name) => {
  const found = fleet.columns[name]
  return Array.isArray(found) ? (at) => found[at] : (_) => found
}
const numberOf = (name, at) => { const value = column(name)(at); return value === undefined ? null : value }
const wordOf = (name, at) => { const of = fleet.words[name]; const code = of.of_run[at]; return code < 0 ? "" : of.values[code] }

// --- words ---
const size = (bytes) => {
  const units = ["bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"]
  let value = bytes, unit = 0
  while (Math.abs(value) >= 1024 && unit < units.length - 1) { value /= 1024; unit += 1 }
  return Number(value.toPrecision(3)).toLocaleString("en") + " " + units[unit]
}
const words = (value, unit) => {
  if (value === null || value === undefined || value === "") return "–"
  if (typeof value === "string") return value
  if (unit === "bytes") return size(value)
  if (unit === "ns") return (value / 1e9).toLocaleString("en", { maximumFractionDigits: 6 }) + " s"
  if (unit === "ratio") return value.toPrecision(3)
  return value.toLocaleString("en", { maximumFractionDigits: 2 })
}
const unitOf = Object.fromEntries(fleet.facts.map((fact) => [fact.name, fact.unit]))

const momentOf = (time, seconds) => new Date(time).toISOString().slice(0, seconds ? 19 : 16).replace("T", " ")

// --- what the filters leave ---
const shownRuns = () => {
  const wanted = Object.entries(state.filters).filter(([, value]) => value !== "")
  const text = state.text.toLowerCase(), found = []
  for (let at = 0; at < fleet.count; at += 1) {
    if (!wanted.every(([name, value]) => name === "cause" ? causesOf(at).includes(value) : wordOf(name, at) === value)) continue
    if (text && !fleet.searched[at].includes(text)) continue
    found.push(at)
  }
  return found
}
const causesOf = (at) => (fleet.failures[at] || []).map((failure) => failure[0])

// --- groups along x ---
const groupsOf = (runs) => {
  if (state.x === "start time") {
    const timed = runs.filter((at) => fleet.times[at] !== null)
    if (!timed.length) return []
    const times = timed.map((at) => fleet.times[at])
    const first = Math.min(...times), last = Math.max(...times)
    const step = Math.max((last - first) / TIME_GROUPS, 1000), found = new Map()
    for (const at of timed) {
      const place = Math.min(Math.floor((fleet.times[at] - first) / step), TIME_GROUPS - 1)
      if (!found.has(place)) found.set(place, { label: momentOf(first + place * step, step < 60000), runs: [] })
      found.get(place).runs.push(at)
    }
    return [...found.keys()].sort((a, b) => a - b).map((place) => found.get(place))
  }
  const of = fleet.words[state.x], found = of.values.map((label) => ({ label, runs: [] }))
  for (const at of runs) if (of.of_run[at] >= 0) found[of.of_run[at]].runs.push(at)
  return found.filter((group) => group.runs.length)
}
const known = (name, runs) => runs.map((at) => numberOf(name, at)).filter((value) => value !== null)
const quantile = (sorted, share) => {
  const place = (sorted.length - 1) * share, low = Math.floor(place)
  return sorted[low] + (sorted[Math.min(low + 1, sorted.length - 1)] - sorted[low]) * (place - low)
}
const spread = (values) => { const sorted = [...values].sort((a, b) => a - b); return (share) => quantile(sorted, share) }

// --- Bokeh ---
const figureOf = (name) => Bokeh.documents[0].get_model_by_name(name)
const sourceOf = (figure) => figure.renderers[0].data_source
const drawCharts = (groups) => {
  for (const name of fleet.charts) {
    const figure = figureOf(name)
    const data = { x: [], label: [], runs: [], median: [], high: [], median_text: [], high_text: [] }
    groups.forEach((group, place) => {
      const values = known(name, group.runs)
      if (!values.length) return
      const of = spread(values), median = of(0.5), high = of(0.95)
      data.x.push(place); data.label.push(group.label); data.runs.push(values.length)
      data.median.push(median); data.high.push(high)
      data.median_text.push(words(median, unitOf[name])); data.high_text.push(words(high, unitOf[name]))
    })
    const labels = groups.map((group) => state.x === "start time" ? group.label.slice(5) : group.label)
    figure.below[0].formatter.args = { source: { data: { label: labels } } }
    if (sourceOf(figure).selected.indices.length) sourceOf(figure).selected.indices = []
    sourceOf(figure).data = data
    figure.below[0].axis_label = state.x + (state.x === "start time" ? " (or when the log was last written)" : "")
    const count = data.runs.reduce((a, b) => a + b, 0)
    const all = groups.reduce((sum, group) => sum + group.runs.length, 0)
    document.getElementById(`note-${name}`).textContent = count === all ? "" :
      `${count.toLocaleString("en")} of ${all.toLocaleString("en")} runs ` + `show ${name in fleet.shown_by ? fleet.shown_by[name] : "it"}`
  }
}
const paint = (dark) => {
  const ink = dark ? "#c3ced8" : "#45535f"
  for (const name of [...fleet.charts, "memory"]) {
    const figure = figureOf(name)
    for (const axis of [...figure.below, ...figure.left]) {
      axis.major_label_text_color = axis.axis_label_text_color = ink
      axis.axis_line_color = axis.major_tick_line_color = ink
    }
    for (const grid of figure.center) grid.grid_line_color = ink
  }
}
window.chooseGroup = (indices) => { state.group = indices.length ? indices[0] : null; listRuns(shownRuns()) }

// --- tables ---
const tableOf = (heads, rows, onRow) => {
  const table = document.createElement("table"), head = table.createTHead().insertRow()
  for (const [title, right, sort] of heads) {
    const cell = document.createElement("th")
    cell.textContent = title
    if (right) cell.className = "right"
    if (sort) {
      cell.dataset.sort = sort; cell.tabIndex = 0
      if (sort === state.sort) cell.setAttribute("aria-sort", state.down ? "descending" : "ascending")
    }
    head.append(cell)
  }
  const body = table.createTBody()
  for (const cells of rows) {
    const row = body.insertRow()
    cells.forEach((text, place) => {
      const cell = row.insertCell()
      cell.textContent = text
      if (heads[place][1]) cell.className = "right"
    })
    if (onRow) onRow(row, cells)
  }
  return table
}
const put = (id, ...nodes) => document.getElementById(id).replaceChildren(...nodes)
const hint = (text) => { const made = document.createElement("p"); made.className = "hint"; made.textContent = text; return made }

const listFailures = (runs) => {
  const groups = new Map(), firsts = new Map(), versions = fleet.words.version
  for (let at = 0; at < fleet.count; at += 1) for (const cause of new Set(causesOf(at))) {
    const key = JSON.stringify([wordOf("program", at), cause]), code = versions.of_run[at]
    if (code >= 0 && !(firsts.get(key) <= code)) firsts.set(key, code)
  }
  for (const at of runs) for (const [cause, , count] of fleet.failures[at] || []) {
    const key = JSON.stringify([wordOf("program", at), wordOf("version", at), cause])
    const group = groups.get(key) || { runs: new Set(), count: 0 }
    group.runs.add(at); group.count += count
    groups.set(key, group)
  }
  const found = [...groups].sort((a, b) => b[1].count - a[1].count).slice(0, MOST_ROWS).map(([key, group]) => {
    const [program, version, cause] = JSON.parse(key), first = firsts.get(JSON.stringify([program, cause]))
    return [program || "–", version || "–", cause, words(group.count), words(group.runs.size), first === undefined ? "–" : versions.values[first]]
  })
  put("failures", found.length ? tableOf([["program"], ["version"], ["cause"], ["failed brk", 1], ["runs", 1], ["first seen in"]], found)
    : hint(known("brk_failures", runs).length ? "In none of these runs did the break fail to grow, as far as their logs show calls of brk."
      : "The logs of these runs show no calls of brk."))
}

const listMoved = (runs) => {
  const versions = fleet.words.version, present = [...new Set(runs.map((at) => versions.of_run[at]))].filter((code) => code >= 0).sort((a, b) => a - b)
  const [before, after] = present.slice(-2), found = []
  if (present.length < 2) { put("moved", hint("There are no two versions among these runs.")); return }
  const programs = new Set(runs.map((at) => wordOf("program", at)))
  for (const program of programs) for (const fact of fleet.facts.filter((fact) => fact.compared)) {
    const side = (version) => known(fact.name, runs.filter((at) => wordOf("program", at) === program && versions.of_run[at] === version))
    const [one, other] = [side(before), side(after)]
    if (!one.length || !other.length) continue
    const [was, is] = [spread(one), spread(other)], apart = one.length + other.length === 2 ? was(0.5) !== is(0.5)
      : is(0.75) < was(0.25) || is(0.25) > was(0.75)
    if (!apart) continue
    const change = is(0.5) - was(0.5), share = was(0.5) ? change / Math.abs(was(0.5)) : Infinity
    found.push({ share, cells: [program || "–", fact.name, words(was(0.5), fact.unit), words(is(0.5), fact.unit),
      Number.isFinite(share) ? (share > 0 ? "+" : "") + Number((share * 100).toPrecision(3)).toLocaleString("en") + " %" : "from 0", `${one.length} / ${other.length}`] })
  }
  found.sort((a, b) => Math.abs(b.share) - Math.abs(a.share))
  const heads = [["program"], ["what"], [`median ${versions.values[before]}`, 1], [`median ${versions.values[after]}`, 1], ["change", 1], ["runs", 1]]
  put("moved", found.length ? tableOf(heads, found.slice(0, 15).map((entry) => entry.cells)) : hint("The middle halves of all quantities overlap: nothing moved beyond the spread of the runs."))
}

const RUN_HEADS = [["run", 0, "run"], ["program", 0, "program"], ["version", 0, "version"], ["failed brk", 1, "brk_failures"], ["cause", 0, "cause"],
  ["fallbacks", 1, "mmap_fallbacks"], ["peak mapped", 1, "peak_mapped_bytes"], ["live at end", 1, "live_bytes"],
  ["heap frag.", 1, "heap_fragmentation"], ["started", 0, "time"]]
const keyOf = (name, at) => name === "run" ? fleet.runs[at] : name === "time" ? fleet.times[at] : name === "cause" ? causesOf(at)[0] || null
  : fleet.words[name] ? wordOf(name, at) || null : numberOf(name, at)
/** Make the name of a run the link to its page, if it has one. */
const linkPage = (cell, at) => {
  if (!fleet.pages[at]) return
  const link = document.createElement("a")
  Object.assign(link, { href: fleet.pages[at], textContent: cell.textContent, title: "Its address space over time" })
  cell.replaceChildren(link)
}
const listRuns = (all) => {
  const groups = groupsOf(all), runs = state.group !== null && groups[state.group] ? groups[state.group].runs : all
  const sign = state.down ? -1 : 1
  const ordered = [...runs].sort((a, b) => {
    const [one, other] = [keyOf(state.sort, a), keyOf(state.sort, b)]
    if (one === null || other === null) return (one === null) - (other === null)
    return one < other ? -sign : one > other ? sign : 0
  }).slice(0, MOST_ROWS)
  const table = tableOf(RUN_HEADS, ordered.map((at) => RUN_HEADS.map(([, , name]) =>
    name === "time" ? (fleet.times[at] === null ? "–" : momentOf(fleet.times[at])) : words(keyOf(name, at), unitOf[name]))))
  ordered.forEach((at, place) => { const row = table.tBodies[0].rows[place]; row.dataset.run = at; row.tabIndex = 0; row.classList.toggle("chosen", at === state.chosen); linkPage(row.cells[0], at) })
  put("runs", table)
  const of = state.group !== null && groups[state.group] ? ` of ${groups[state.group].label}` : ""
  document.getElementById("listed").textContent = `${Math.min(runs.length, MOST_ROWS).toLocaleString("en")} of ${runs.length.toLocaleString("en")} runs${of}`
}

const showRun = (at) => {
  state.chosen = at
  document.getElementById("chosen-name").textContent = fleet.runs[at]
  const picture = document.getElementById("picture")
  picture.hidden = !fleet.pages[at]
  if (fleet.pages[at]) picture.firstElementChild.href = fleet.pages[at]
  document.getElementById("verdict").textContent = fleet.verdicts.values[fleet.verdicts.of_run[at]]
  const curve = fleet.curves[at] || {}, peak = (numberOf("peak_mapped_bytes", at) || 0) / 255, of = (name) => (curve[name] || []).map((value) => value * peak)
  const mapped = of("mapped"), nothing = mapped.map(() => NaN)
  sourceOf(figureOf("memory")).data = { x: mapped.map((_, place) => (place + 0.5) * 100 / mapped.length), mapped, live: curve.live ? of("live") : nothing }
  document.getElementById("memory-note").textContent = mapped.length ? "Blue: mapped, the most in each part of the log; orange: live blocks of malloc" + (curve.live ? "." : ", which this log does not show.")
    : "The dataset holds no course of this run."
  const owners = fleet.owners.of_run[at] || []
  put("owners", owners.length ? tableOf([["owner at the peak"], ["mapped", 1]], owners.map(([code, bytes]) => [fleet.owners.values[code], size(bytes)])) : hint("Who owned the memory at the peak is not known."))
  const failures = fleet.failures[at] || []
  put("evidence", failures.length ? tableOf([["cause"], ["in the way"], ["failed brk", 1], ["first line", 1], ["evidence"]],
    failures.map(([cause, blocker, count, line, evidence]) => [cause, blocker, words(count), words(line), evidence])) : hint(numberOf("brk_failures", at) === null ? "The log shows no calls of brk." : "No brk failed."))
  const facts = tableOf([["column"], ["value"]], fleet.facts.map((fact) => [fact.name, fact.name in fleet.words ? wordOf(fact.name, at) || "–" : words(numberOf(fact.name, at), fact.unit)]))
  fleet.facts.forEach((fact, place) => { facts.tBodies[0].rows[place].title = fact.meaning })
  put("facts", facts)
  document.getElementById("chosen").hidden = false
}

// --- all of it ---
const update = () => {
  state.group = null
  const runs = shownRuns()
  document.getElementById("count").textContent = `${runs.length.toLocaleString("en")} of ${fleet.count.toLocaleString("en")} runs`
  listFailures(runs); listMoved(runs); drawCharts(groupsOf(runs)); listRuns(runs)
}
const fill = (select, values, all) => {
  for (const value of values) {
    const option = document.createElement("option")
    option.value = value === all ? "" : value
    option.textContent = value.length > 40 ? value.slice(0, 18) + "…" + value.slice(-20) : value
    select.append(option)
  }
}
const start = () => {
  const x = document.getElementById("x")
  fill(x, fleet.axes, null)
  x.value = state.x
  x.addEventListener("change", () => { state.x = x.value; update() })
  for (const select of document.querySelectorAll("select[data-filter]")) {
    const name = select.dataset.filter, values = name === "cause" ? [...new Set(Object.values(fleet.failures).flat().map((failure) => failure[0]))].sort() : fleet.words[name].values
    fill(select, ["all", ...values], "all")
    select.addEventListener("change", () => { state.filters[name] = select.value; update() })
  }
  document.getElementById("text").addEventListener("input", (event) => { state.text = event.target.value; update() })
  document.getElementById("all").addEventListener("click", () => {
    for (const select of document.querySelectorAll("select[data-filter]")) select.value = ""
    document.getElementById("text").value = state.text = ""
    state.filters = {}
    update()
  })
  const act = (event) => {
    const head = event.target.closest("th[data-sort]"), row = event.target.closest("tr[data-run]")
    if (head) {
      const same = state.sort === head.dataset.sort
      state.down = same ? !state.down : head.className === "right"  // the largest first, and words from a to z
      state.sort = head.dataset.sort
      listRuns(shownRuns())
      document.querySelector(`th[data-sort="${state.sort}"]`).focus()
    }
    if (row) { showRun(Number(row.dataset.run)); listRuns(shownRuns()); document.getElementById("chosen").scrollIntoView({ block: "start" }) }
  }
  document.addEventListener("click", act)
  document.addEventListener("keydown", (event) => { if (event.key === "Enter") act(event) })
  const dark = window.matchMedia("(prefers-color-scheme: dark)")
  dark.addEventListener("change", () => paint(dark.matches))
  window.addEventListener("beforeprint", () => {
    paint(false)
    for (const name of [...fleet.charts, "memory"]) Bokeh.index.find_one(figureOf(name)).paint()  // paper does not wait
  })
  window.addEventListener("afterprint", () => paint(dark.matches))
  paint(dark.matches)
  update()
  if (fleet.worst !== null) showRun(fleet.worst)
}
const wait = () => Bokeh.documents.length && figureOf("memory") ? start() : setTimeout(wait, 20)
if (fleet.count) wait()
