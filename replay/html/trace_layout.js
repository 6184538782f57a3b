// The page laid out: head and tools, the panes with the gaps between them, the curves, the legend.
"use strict"

/** Build the page: a head, the picture, and beside it the verdict and the moment. */
function build() {
  const { head } = run
  dom.picture = element("section", { className: "picture", ariaLabel: "The address space over time" })
  dom.moment = momentBox()
  dom.tip = element("div", { className: "tip", hidden: true })
  dom.found = element("div", { className: "found", role: "status" })
  const page = document.getElementById("page")
  page.replaceChildren(
    element("header", {}, element("h1", { textContent: head.title }), subtitle(), toolbar(), dom.found),
    element("div", { className: "columns" }, dom.picture, element("aside", {}, verdict(), dom.moment)),
    dom.tip,
  )
}

function subtitle() {
  const { shown } = run.head
  const thinned = Object.entries(shown).flatMap(([what, [kept, all]]) =>
    kept < all ? [`${grouped(kept)} of ${counted(all, what.slice(0, -1))}`] : [])
  const text = `${counted(run.head.last, "line")}, ${counted(shown.steps[1], "step")}, ` +
    `${counted(shown.mappings[1], "mapping rectangle")}` +
    (shown.blocks[1] ? `, ${counted(shown.blocks[1], "block")}` : "")
  const line = element("p", { className: "subtitle", textContent: text })
  if (thinned.length)
    line.append(element("b", { textContent: ` The page holds ${thinned.join(", ")}: what is smallest and shortest is left ` +
      "out. `replay maps --line N` tells a moment whole." }))
  return line
}

function toolbar() {
  const { head } = run
  const button = (text, title, action) => element("button", { type: "button", textContent: text, title, onclick: action,
    ariaLabel: text.length > 1 ? null : title.replace(/ \(.*/, "") })
  dom.space = element("select", { title: "The address space", onchange: () => takeSpace(Number(dom.space.value)) },
    ...head.spaces.map((space) => element("option", { value: space.space, textContent: spaceWords(space) })))
  dom.axisChoice = element("select", { title: "What runs across", onchange: () => takeAxis(dom.axisChoice.value) },
    element("option", { value: "line", textContent: "by line" }),
    ...(run.seconds ? [element("option", { value: "time", textContent: "by time" })] : []))
  dom.search = element("input", { type: "search", placeholder: "address, path or line  ( / )", title: "Search: an address such as 0x5639fe40f000, a part of a path, or line 42",
    onkeydown: (event) => event.key === "Enter" && search(dom.search.value), ariaLabel: "Search for an address, a path or a line" })
  dom.help = helpBox()
  return element("div", { className: "toolbar", role: "toolbar", ariaLabel: "The view" },
    ...(head.spaces.length > 1 ? [dom.space] : []), dom.axisChoice,
    button("−", "Zoom out ( - )", () => zoom(1.6)), button("+", "Zoom in ( + )", () => zoom(1 / 1.6)),
    button("all", "The whole run ( 0 )", showAll),
    button("◀ step", "The step before ( ← )", () => goStep(-1)), button("step ▶", "The next step ( → )", () => goStep(1)),
    button("next failure", "The next refused break or fallback ( f )", () => goFailure(1)),
    dom.search, dom.help)
}

function helpBox() {
  const lines = ["wheel: zoom in time; with shift: move; with alt: zoom in addresses", "drag: move",
    "click: choose a moment; with shift: compare it with another", "← →: a step back, a step on; with shift: compare with it",
    "+ −: zoom; [ ]: move; 0: all", "z Z, ↑ ↓: zoom and move the addresses of the pane that has the focus", "f, F: next, previous failure", "/: search   m: maps of the moment   Esc: leave"]
  return element("details", { className: "help" }, element("summary", { textContent: "keys", title: "Keys and mouse ( ? )" }),
    element("ul", {}, ...lines.map((textContent) => element("li", { textContent }))))
}

const spaceWords = ({ space, pid, program }) =>
  `space ${space}` + (program ? ` ${shortened(baseName(program), 28)}` : "") + (pid ? ` (pid ${pid})` : "")

function takeSpace(space) {
  const isAll = view.from <= startOfAxis() && view.to >= endOfAxis()
  chooseSpace(space)
  if (isAll) showLife()
  setMoment(view.moment, { isShown: false })
}

function takeAxis(axis) {
  const [from, to] = [clockAt(view.from), clockAt(view.to)]
  const isAll = view.from <= startOfAxis() && view.to >= endOfAxis()
  view.axis = axis
  time()
  if (isAll) setRange(startOfAxis(), endOfAxis())
  else setRange(axisOf(from), axisOf(to))
}

/** Lay the picture of a space out: lane of marks, panes from high addresses to low with the gaps between, curves, axis. */
function layOut() {
  dom.lane = element("canvas", { className: "lane", tabIndex: 0, role: "img",
    ariaLabel: "Marks: refused breaks, fallbacks, refused calls, exits. Their table follows." })
  dom.hairline = element("div", { className: "hairline", hidden: true })
  dom.cursor = element("div", { className: "cursor", hidden: true })
  dom.otherCursor = element("div", { className: "cursor other", hidden: true })
  dom.axis = element("div", { className: "axis" })
  const parts = [legend(), row(laneLabels(), dom.lane, tableBehind("marks", markRows))]
  view.panes.toReversed().forEach((pane, at, all) => {
    parts.push(paneRow(pane))
    const below = all[at + 1]
    if (below) parts.push(element("div", { className: "cut", textContent: cutWords(bytesIn(pane.low - below.high)) }))
  })
  if (!view.panes.length) parts.push(element("p", { textContent: "No mapping of this space is in the log." }))
  if (view.heap) parts.push(element("div", { className: "cut" }), paneRow(view.heap))
  parts.push(...view.charts.map(chartRow), row(element("div", { className: "gutter", textContent: view.axis }), dom.axis))
  dom.stage = element("div", { className: "stage" }, ...parts, dom.hairline, dom.cursor, dom.otherCursor)
  dom.picture.replaceChildren(dom.stage)
  dom.space.value = view.space
  dom.axisChoice.value = view.axis
  listen(dom.lane, null, (place) => markLines(clockAt(place)))
}

const cutWords = (bytes) => (bytes ? `⋮  cut: ${size(bytes)} left out  ⋮` : "⋮  the next part begins right here  ⋮")

const row = (gutter, middle, ...more) => element("div", { className: "row" }, gutter, middle, ...more)

function laneLabels() {
  return element("div", { className: "gutter lane-labels" }, ...LANE.map((textContent) => element("span", { textContent })))
}

function paneRow(pane) {
  pane.canvas = element("canvas", { className: "pane", tabIndex: 0, role: "img",
    ariaLabel: `${pane.name}: rectangles of addresses over time. The table follows.` })
  const count = pane.isHeap ? Math.sqrt(pane.rows.length) * 4 + 120 : 46 + 15 * Math.log2(2 + pane.borders.length) * (pane.isBrk ? 2 : 1)
  pane.canvas.style.height = `${Math.round(Math.min(Math.max(count, 64), pane.isBrk || pane.isHeap ? 230 : 150))}px`
  pane.labels = element("div", { className: "gutter" })
  const title = element("div", { className: "pane-title" }, element("span", { textContent: pane.name }))
  if (!pane.isHeap) title.append(scaleButton(pane))
  listen(pane.canvas, pane, (place, share) => rectangleLines(pane, place, share))
  return row(pane.labels, element("div", { className: "pane-box" }, title, pane.canvas),
    tableBehind(pane.name, () => (pane.isHeap ? blockRows(pane) : mappingRows(pane))))
}

function scaleButton(pane) {
  const button = element("button", { type: "button", title: "True: sizes as they are. Even: each distinct range equally tall.",
    onclick: () => {
      pane.setScale(!pane.isEven)
      redraw()
    } })
  const tell = () => {
    button.textContent = pane.isEven ? "even scale" : "true scale"
    button.ariaLabel = `${pane.name}: ${button.textContent}`
  }
  pane.setScale = (isEven) => {
    Object.assign(pane, { isEven, from: 0, to: 1 })
    place(pane)
    tell()
  }
  tell()
  return button
}

function chartRow(chart) {
  chart.canvas = element("canvas", { className: "chart", tabIndex: 0, role: "img", ariaLabel: `${chart.title} over time. The table follows.` })
  chart.high = element("span", { className: "address" })
  chart.low = element("span", { className: "address low" })
  const isWhole = chart.curves.every((curve) => curve.isWhole)
  const reserved = chart.isStack && chart.curves.some(isNoAccess) ? "; grey: cannot be resident" : ""
  const title = chart.title + reserved + (isWhole ? "" : "; thinned to lows and highs")
  const keys = chart.isStack || chart.lines.length < 2 ? [] : chart.curves.map((curve, at) => {
    const key = element("span", { className: "key", textContent: titleOf(curve) })
    key.style.setProperty("--colour", `var(--line-${at})`)
    return key
  })
  listen(chart.canvas, null, (place) => [titleOfMoment(clockAt(place)), ...chartLines(chart, clockAt(place))])
  return row(element("div", { className: "gutter" }, chart.high, chart.low),
    element("div", { className: "pane-box" }, element("div", { className: "pane-title" }, element("span", { textContent: title }), ...keys), chart.canvas),
    tableBehind(chart.title, () => curveRows(chart)))
}

function legend() {
  const present = new Set(view.panes.flatMap((pane) => [...pane.colour]))
  const entries = [...present].sort((one, other) => one - other).map((code) => {
    const swatch = element("canvas", { className: "swatch", width: 18, height: 12 })
    const image = new ImageData(18, 12)
    fill(new Uint32Array(image.data.buffer), 18, patternOf(code, 18), 0, 18, 0, 12)
    swatch.getContext("2d").putImageData(image, 0, 0)
    return element("span", {}, swatch, kindWords(code))
  })
  return element("div", { className: "legend" }, ...entries)
}
