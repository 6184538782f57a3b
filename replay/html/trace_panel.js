// What is said of the picture: what a place of it tells, the tables behind it, the verdict, the moment in words, search and
// keys; and the start of it all.
"use strict"

const MOST_ROWS = 500
const AROUND = 10
const MOST_NARROWED = 100_000

// --- what a place of the picture tells -------------------------------------------------------------------------------

const titleOfMoment = (clock) => placeOf(clock) + (run.seconds ? `, ${duration(run.seconds[Math.max(0, stepAt(clock))])}` : "")

function rectangleLines(pane, place, share) {
  const slack = (6 / pane.canvas.clientHeight) * (pane.to - pane.from), at = hit(pane, place, share, pane.isHeap ? slack / 3 : slack)
  if (at >= 0) return pane.isHeap ? blockLines(pane.rows[at]) : mappingLines(pane.rows[at])
  const where = pane.isHeap ? "0x" + Math.round(pane.low + share * (pane.high - pane.low)).toString(16) : address(Math.floor(pagesAt(pane, share)))
  return [`${where}: nothing ${pane.isHeap ? "live" : "mapped"} at ${titleOfMoment(clockAt(place))}`]
}

const bornWords = (clock) => placeOf(clock) || "before the log"
const diedWords = (clock) => (clock === Infinity ? "the log does not show its end" : `until ${placeOf(clock)}`)

function mappingLines(row) {
  const { mapped } = run, part = (name) => lookOf(row, name)
  const name = part("path") || (part("kind") === "brk" ? "[heap]" : kindWords(part("colour")))
  const from = mapped.made[row] !== mapped.born[row] ? `made by ${bornWords(mapped.made[row])}, so since ${bornWords(mapped.born[row])}` : `made by ${bornWords(mapped.born[row])}`
  return [
    name,
    `${address(mapped.start[row])}-${address(mapped.end[row])}`,
    `${exact(bytesIn(mapped.size[row]))} ${part("perms")}`,
    ...blockerLines(row),
    ...(part("owner") ? [`owner: ${part("owner")}`] : []),
    ...(part("origin") === "trace" ? [] : [`known by: ${part("origin")}`]),
    from,
    diedWords(mapped.died[row]),
  ]
}

/** Return how often a mapping was in the way of the break, if it was. */
function blockerLines(row) {
  const { mark, mapped } = run
  const rows = [...view.marks].filter((at) => mark.kind[at] === 0 && mark.blocker_size[at] &&
    mark.blocker[at] === mapped.start[row] && mark.clock[at] >= mapped.born[row] && mark.clock[at] < mapped.died[row])
  if (!rows.length) return []
  const first = placeOf(mark.clock[rows[0]])
  return [`in the way of the break: ${first}` + (rows.length > 1 ? ` and ${counted(rows.length - 1, "time")} more` : "")]
}

function blockLines(row) {
  const { block, head } = run
  const [call, backing, caller, end] = head.blockLooks[block.look[row]]
  return [
    `${call} ${counted(block.size[row], "byte")}`,
    `0x${block.addr[row].toString(16)}-0x${(block.addr[row] + block.size[row]).toString(16)}`,
    ...(caller ? [`caller: ${caller}`] : []),
    ...(backing === "unknown" ? ["its memory is not in the log"] : []),
    `given by ${bornWords(block.born[row])}`,
    block.died[row] === Infinity ? "never given back in the log" : `${end} at ${placeOf(block.died[row])}`,
  ]
}

/** Return what the marks near a clock say. */
function markLines(clock) {
  const { mark } = run, near = Math.abs(clockAt(view.from + (view.to - view.from) * 0.004) - clockAt(view.from)) + 1
  const rows = [...view.marks].filter((row) => Math.abs(mark.clock[row] - clock) <= near)
  rows.sort((one, other) => Math.abs(mark.clock[one] - clock) - Math.abs(mark.clock[other] - clock))
  return rows.slice(0, 3).flatMap((row) => [`${placeOf(mark.clock[row])}: ${markWords(row)}`, run.head.markTexts[mark.text[row]]])
}

function markWords(row) {
  const { mark, head } = run, bytes = mark.bytes[row] ? `, ${exact(mark.bytes[row])}` : ""
  return head.marks[mark.kind[row]] + (mark.kind[row] === 0 ? `${bytes} short` : bytes)
}

// --- tables behind the picture ---------------------------------------------------------------------------------------

/** Return a table that is filled when it is opened: what a pane shows, for those who do not see it. */
function tableBehind(name, rowsOfTable) {
  const box = element("details", { className: "behind" }, element("summary", {}, "table", element("span", { className: "unseen", textContent: `: ${name}` })))
  box.addEventListener("toggle", () => {
    if (box.open) box.append(tableOf(rowsOfTable()))
    else box.lastElementChild?.tagName === "DIV" && box.lastElementChild.remove()
  })
  return box
}

function tableOf({ heads, rows, total }) {
  const table = element("table", {}, element("thead", {}, element("tr", {}, ...heads.map((textContent) => element("th", { textContent, scope: "col" })))))
  const body = element("tbody")
  for (const { cells, clock } of rows) {
    const line = element("tr", {}, ...cells.map((textContent) => element("td", { textContent })))
    if (clock >= 1) line.append(element("td", {}, lineLink("show", clock)))
    body.append(line)
  }
  table.append(body)
  const more = total > rows.length ? [element("p", { textContent: `and ${grouped(total - rows.length)} more in view: zoom in, or \`replay export\` has all` })] : []
  return element("div", { className: "scroll" }, table, ...more)
}

function inView(pane) {
  const rows = []
  let total = 0
  for (let at = 0; at < pane.rows.length; at++)
    if (pane.deaths[at] > view.from && pane.births[at] < view.to && ++total <= MOST_ROWS) rows.push(pane.rows[at])
  return { rows, total }
}

function mappingRows(pane) {
  const { mapped } = run, { rows, total } = inView(pane)
  const cells = (row) => [digits(mapped.start[row]), digits(mapped.end[row]), size(bytesIn(mapped.size[row])), lookOf(row, "perms"),
    lookOf(row, "path") || kindWords(lookOf(row, "colour")), lookOf(row, "owner"), bornWords(mapped.born[row]), diedWords(mapped.died[row])]
  return { heads: ["start", "end", "size", "permissions", "what", "owner", "since", "until"], total,
    rows: rows.map((row) => ({ cells: cells(row), clock: mapped.born[row] })) }
}

function blockRows(pane) {
  const { block } = run, { rows, total } = inView(pane)
  const cells = (row) => ["0x" + block.addr[row].toString(16), grouped(block.size[row]), run.head.blockLooks[block.look[row]][0],
    bornWords(block.born[row]), block.died[row] === Infinity ? "live at the end" : placeOf(block.died[row])]
  return { heads: ["address", "bytes", "call", "given", "given back"], total,
    rows: rows.map((row) => ({ cells: cells(row), clock: block.born[row] })) }
}

function markRows() {
  const { mark } = run
  const rows = [...view.marks].filter((row) => axisOf(mark.clock[row]) >= view.from && axisOf(mark.clock[row]) < view.to)
  return { heads: ["line", "what", "why"], total: rows.length, rows: rows.slice(0, MOST_ROWS).map((row) => ({
    cells: [placeOf(mark.clock[row]), markWords(row), run.head.markTexts[mark.text[row]]], clock: mark.clock[row] })) }
}

function curveRows(chart) {
  const clocks = momentsOf(chart, clockAt(view.from), clockAt(view.to))
  return { heads: ["line", ...chart.curves.map(titleOf)], total: clocks.length, rows: clocks.slice(0, MOST_ROWS).map((clock) => ({
    cells: [placeOf(clock), ...chart.curves.map((curve) => inWords(valueAt(curve, clock), chart.unit))], clock })) }
}

// --- the verdict, and the moment in words ----------------------------------------------------------------------------

const lineLink = (textContent, clock) => element("a", { textContent, href: `#line=${clock}`, onclick: (event) => {
  event.preventDefault()
  setMoment(clock)
} })

/** Return the first sections of the report; each line number is a link into the picture. */
function verdict() {
  const parts = []
  let last = ""
  for (const [heading, text, tone] of run.head.said) {
    if (heading !== last) parts.push(element("h2", { textContent: heading }))
    last = heading
    parts.push(element("p", { className: tone }, ...linked(text)))
  }
  return element("section", { className: "verdict", ariaLabel: "The verdict" }, ...parts)
}

/** Return a text with its line numbers as links. */
function linked(text) {
  const parts = []
  let done = 0
  for (const match of text.matchAll(/\blines? ([\d,]+)(?: (?:to|and|-) ([\d,]+))?(?: of ([^\s),;]+[^\s),;.]))?/g)) {
    const file = run.head.files.includes(match[3]) ? match[3] : ""
    for (const number of [match[1], match[2]]) {
      if (!number) continue
      const at = text.indexOf(number, Math.max(done, match.index)), line = Number(number.replaceAll(",", ""))
      if (line < 1) continue
      parts.push(text.slice(done, at), lineLink(number, clockOf(line, file)))
      done = at + number.length
    }
  }
  return [...parts, text.slice(done)]
}

const TABS = { maps: "maps", steps: "steps", change: "what changed" }

/** Return the box of the chosen moment; its heading is read aloud when it changes. */
function momentBox() {
  dom.heading = element("h2", { ariaLive: "polite" })
  dom.tabs = Object.fromEntries(Object.entries(TABS).map(([tab, textContent]) => [tab, element("button", { type: "button", textContent,
    onclick: () => showTab(tab) })]))
  dom.text = element("pre", { tabIndex: 0 })
  dom.command = element("code")
  return element("section", { className: "moment", id: "moment", tabIndex: -1, ariaLabel: "The chosen moment" }, dom.heading,
    element("div", { className: "tabs" }, ...Object.values(dom.tabs)), dom.text, element("p", { className: "command" }, dom.command))
}

function showTab(tab) {
  view.tab = tab
  showMoment()
  keepFragment()
}

/** Show the chosen moment: its maps, the steps before and after, what changed; the same text as the commands print. */
function showMoment() {
  const clock = view.moment, place = stepAt(clock), other = view.other ?? clock
  const at = `At ${titleOfMoment(clock)}` + (place >= 0 ? `, step ${run.steps.step[place]}` : "")
  const [text, command] = momentText(view.tab, clock, place)
  dom.heading.textContent = view.other === null ? at : `From ${placeOf(Math.min(clock, other))} to ${placeOf(Math.max(clock, other))}`
  for (const [tab, button] of Object.entries(dom.tabs)) button.ariaPressed = String(tab === view.tab)
  dom.text.replaceChildren(...withNarrowPadding(text))
  dom.command.textContent = command
}

/** Return a text, what pads its lines in few columns: the file of a mapping is to be seen without scrolling. */
function withNarrowPadding(text) {
  if (text.length > MOST_NARROWED) return [text]
  return text.split(/( {12,})/).map((part, at) => (at % 2 ? element("span", { className: "padding", textContent: part }) : part))
}

/** Return the text of a tab, and the command that prints it. */
function momentText(tab, clock, place) {
  const { steps, head } = run
  const pid = head.spaces[view.space].pid
  const whose = head.spaces.length > 1 && pid ? ` --pid ${pid}` : ""
  if (tab === "maps") return [mapsText(view.space, clock) || "nothing is mapped then, as far as the log shows", `replay maps ${head.trace} --line ${clock}${whose}`]
  if (place < 0) return ["no step had completed then", ""]
  if (tab === "steps") {
    const first = Math.max(0, place - AROUND), last = Math.min(steps.clock.length - 1, place + AROUND)
    const lines = stepLines(first, last).map((line, at) => (at - 1 === place - first ? "▶" : " ") + line)
    return [lines.join("\n"), `replay steps ${head.trace} --from ${steps.step[first]} --to ${steps.step[last]}`]
  }
  const other = view.other === null ? place - 1 : stepAt(view.other)
  const [first, second] = [Math.min(place, other), Math.max(place, other)]
  if (first < 0) return ["there is no step before it", ""]
  return [diffText(first, second, view.space), `replay diff ${head.trace} ${steps.step[first]} ${steps.step[second]}${whose}`]
}

// --- search, steps, failures, keys -----------------------------------------------------------------------------------

/** Go to a line, or find an address or a part of a path among the mappings of the space, and show what was found. */
function search(text) {
  const asked = text.trim(), line = /^lines? ([\d,]+)$/i.exec(asked)
  if (line) return setMoment(Number(line[1].replaceAll(",", "")))
  if (!asked) return dom.found.replaceChildren()
  const isAddress = /^(0x)?[0-9a-f]{4,16}$/i.test(asked) && (/^0x/i.test(asked) || /\d/.test(asked))
  const pages = isAddress ? parseInt(asked.replace(/^0x/i, ""), 16) / run.head.unit : 0
  const { mapped } = run
  const matches = run.head.looks.map((look) => !isAddress && `${look[LOOK.path]} ${look[LOOK.owner]}`.toLowerCase().includes(asked.toLowerCase()))
  const rows = rowsOf(mapped, view.space).filter((row) => (isAddress ? mapped.start[row] <= pages && pages < mapped.end[row] : matches[mapped.look[row]]))
  const links = [...rows.slice(0, 12)].map((row) => element("li", {},
    lineLink(bornWords(mapped.born[row]), Math.max(1, mapped.born[row])), ` ${mappingLines(row).slice(0, 3).join(" ")}, ${diedWords(mapped.died[row])}`))
  const title = `${counted(rows.length, "mapping")} of this space for ${asked}` + (rows.length > 12 ? "; the first 12:" : rows.length ? ":" : "")
  dom.found.replaceChildren(element("span", { textContent: title }), element("ul", {}, ...links))
  if (rows.length) setMoment(Math.max(1, mapped.born[rows[0]]))
}

/** Go to the next or previous step of the space, or compare the moment with it. */
function goStep(by, isOther = false) {
  const { steps } = run, from = isOther ? view.other ?? view.moment : view.moment
  let place = stepAt(from)
  if (by < 0 && place >= 0 && steps.clock[place] < from && steps.space[place] === view.space) return setMoment(steps.clock[place], { isOther })
  do place += by
  while (place >= 0 && place < steps.clock.length && steps.space[place] !== view.space)
  if (place >= 0 && place < steps.clock.length) setMoment(steps.clock[place], { isOther })
}

/** Go to the next or previous refused break, refused call or fallback. */
function goFailure(by) {
  const { mark } = run
  const clocks = [...view.marks].filter((row) => mark.kind[row] < 4).map((row) => mark.clock[row])
  const next = by > 0 ? clocks.find((clock) => clock > view.moment) : clocks.findLast((clock) => clock < view.moment)
  if (next !== undefined) setMoment(next)
}

const KEYS = {
  ArrowLeft: ({ shiftKey }) => goStep(-1, shiftKey),
  ArrowRight: ({ shiftKey }) => goStep(1, shiftKey),
  ArrowUp: () => moveAddresses(0.25),
  ArrowDown: () => moveAddresses(-0.25),
  z: () => zoomFocused(1 / 1.6),
  Z: () => zoomFocused(1.6),
  "+": () => zoom(1 / 1.6, axisOf(view.moment)),
  "=": () => zoom(1 / 1.6, axisOf(view.moment)),
  "-": () => zoom(1.6, axisOf(view.moment)),
  0: showAll,
  "[": () => pan(-0.25),
  "]": () => pan(0.25),
  f: () => goFailure(1),
  F: () => goFailure(-1),
  "/": () => dom.search.focus(),
  m: () => {
    showTab("maps")
    dom.text.focus()
  },
  "?": () => {
    dom.help.open = !dom.help.open
  },
}

function onKey(event) {
  if (event.key === "Escape") {
    document.activeElement?.blur()
    dom.found.replaceChildren()
    dom.help.open = false
    return
  }
  const isTyping = /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName)
  if (isTyping || event.ctrlKey || event.metaKey || event.altKey || !KEYS[event.key]) return
  if (KEYS[event.key](event) !== false) event.preventDefault()
}

/** Begin: unpack, build, listen, draw. */
async function start() {
  await unpack(document.getElementById("data").textContent)
  setTheme()
  build()
  readFragment()
  document.addEventListener("keydown", onKey)
  addEventListener("hashchange", readFragment)
  addEventListener("resize", redraw)
  for (const query of ["(prefers-color-scheme: dark)", "print"])
    matchMedia(query).addEventListener("change", () => {
      setTheme()
      layOut()
      draw()
    })
  document.getElementById("page").ariaBusy = "false"
}

start()
