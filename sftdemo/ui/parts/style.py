"""How the app looks: the theme, the style sheet, and the few lines of script the page itself needs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sftdemo.ui.texts import TEXTS

CSS_PATH = Path(__file__).with_name("style.css")
FONTS = ["system-ui", "-apple-system", "Segoe UI", "PingFang SC", "Microsoft YaHei", "Noto Sans CJK SC", "sans-serif"]
MONO = ["ui-monospace", "SF Mono", "Cascadia Mono", "Menlo", "Consolas", "monospace"]

# Stands first in the page (see server.py). The language and the brightness are the browser's unless chosen; the choice is put in place before Gradio starts.
# The cookie tells the server which language its own sentences are to have.
# On a phone Gradio hides the footer's API link, but not its dot.
# What stands in the field for files and over a toast is said by the style sheet: Gradio says the one in the language of the page's
# beginning, the other in English.
# Until the first data has been read nothing of the page is drawn but grey shapes, so that nothing on it ever jumps.
HEAD = (
    "<style>"
    + "".join(
        f'html[lang^={lang}] {{ --drop: "{texts["data_drop"]}"; --failed: "{texts["toast_title"]}"; --note: "{texts["toast_note"]}"; }} '
        for lang, texts in TEXTS.items()
    )
    + """
.toast-title { font-size: 0 !important; } .toast-title::before { content: var(--note); font-size: 14px; }
.toast-title.error::before { content: var(--failed); } .toast-count { font-size: 12px; margin-left: 4px; }
@media (max-width: 640px) { footer .divider { display: none !important; } }
html:not(.arrived) .gradio-container, html:not(.ready) :is(#tab-data, footer) { visibility: hidden !important; }
html:not(.ready) body::before { content: ""; position: fixed; z-index: 1; pointer-events: none; inset: 180px 0 auto; margin: 0 auto;
  width: min(1160px, 92vw); height: 340px; background: repeating-linear-gradient(rgb(128 136 150 / .14) 0 68px, transparent 68px 84px); }
</style>
<script>
(() => {
  let locale = navigator.language;
  Object.defineProperty(navigator, "language", {get: () => locale});
  const choose = (lang) => {
    locale = lang === "zh" ? "zh-CN" : "en";
    // As cookies.set_cookie: in a frame of another site only a cookie for that frame alone is kept and sent.
    const framed = window.top !== window && location.protocol === "https:";
    const sent = framed ? "SameSite=None;Secure;Partitioned" : "SameSite=Lax";
    document.cookie = `sftdemo_lang=${lang};path=/;${sent};max-age=31536000`;
  };
  const chosen = localStorage.getItem("sftdemo-lang");
  if (chosen) choose(chosen);
  else if (locale.startsWith("zh")) locale = "zh-CN";  // there is one Chinese, for zh, zh-TW and all others
  document.documentElement.lang = locale.startsWith("zh") ? "zh-CN" : "en";
  // Another language, on the page as it stands: the server draws its own texts anew (redraw.py), Gradio translates its labels.
  const speak = async (lang) => {
    choose(lang);
    const loaded = performance.getEntriesByType("resource").map((entry) => entry.name);
    const core = loaded.find((name) => /\/assets\/core-[^/]*\.js$/.test(name));
    const {changeLocale} = core ? await import(core) : {}, button = document.getElementById("language-switched");
    if (!changeLocale || !button) { location.reload(); return; }
    window.sftdemo.spoken = () => {  // once the server's texts are there, so that the page is never in two languages
      document.documentElement.lang = locale;
      changeLocale(locale);
    };
    button.click();
  };
  addEventListener("storage", (event) => { if (event.key === "sftdemo-lang" && event.newValue) speak(event.newValue); });
  const url = new URL(location.href), theme = localStorage.getItem("sftdemo-theme");
  if (theme && url.searchParams.get("__theme") !== theme) {
    url.searchParams.set("__theme", theme);
    history.replaceState(null, "", url);
  }
  window.sftdemo = {
    lang() {
      const lang = locale.startsWith("zh") ? "en" : "zh";
      localStorage.setItem("sftdemo-lang", lang);
      speak(lang);
    },
    theme() {
      const dark = document.body.classList.toggle("dark");
      localStorage.setItem("sftdemo-theme", dark ? "dark" : "light");
    },
    // A part of the page has what it shows at first; it is drawn once Gradio has put that in place.
    shown(part) {
      requestAnimationFrame(() => setTimeout(() => document.documentElement.classList.add(...part), 60));
    },
    // Of several changes at once, each of which asks for the same, the button is clicked once, after the last.
    waiting: {},
    soon(id) {
      clearTimeout(this.waiting[id]);
      this.waiting[id] = setTimeout(() => document.getElementById(id)?.click(), 30);
    },
    arrived: false,  // until the page has followed its address, what it shows meanwhile isn't written there
    // The address names what is shown now; a step of the user's is one of the browser's history.
    here(shown) {
      if (shown.tab && !this.arrived) return;
      const url = new URL(location.href), params = url.searchParams;
      const before = {tab: "data", run: "", answer: "", ...Object.fromEntries(params)};
      const changed = Object.entries(shown).filter(([key, value]) => value !== before[key]);
      if (!changed.length) return;
      for (const row of ["answer", "row"]) params.delete(row);  // it is one of the run's on its tab
      for (const [key, value] of changed) value ? params.set(key, value) : params.delete(key);
      history[navigator.userActivation?.hasBeenActive ? "pushState" : "replaceState"](history.state, "", url);
    },
  };
  setTimeout(() => window.sftdemo.shown(["arrived", "ready"]), 15000);  // whatever has failed meanwhile
  addEventListener("popstate", () => document.getElementById("travel")?.click());
  // Work that was begun on another page is noticed, where somebody looks; while there is some the page ticks by itself.
  const look = () => {
    if (!document.hidden && !document.getElementById("work")?.offsetParent) document.getElementById("look-for-work")?.click();
  };
  setInterval(look, 15000);
  document.addEventListener("visibilitychange", look);
  // What was chosen and set outlives them, too (see browser_store.py); nothing is kept before what was kept is back.
  const key = (name) => `sftdemo-kept-${name}`, back = new Set();
  Object.assign(window.sftdemo, {
    keep(name, text) { if (text) sessionStorage.setItem(key(name), text); },
    kept(name) {
      back.add(name);
      return sessionStorage.getItem(key(name)) || "";
    },
    keepValues(name, names, values) {
      if (back.has(name)) this.keep(name, JSON.stringify(Object.fromEntries(names.map((name, i) => [name, values[i]]))));
    },
    keptValues(name, names, values) {
      const kept = JSON.parse(this.kept(name) || "{}"), text = JSON.stringify;
      // What stays as it is isn't sent: Gradio looks for each component anew in its whole tree, and tells each one's change.
      return names.map((name, i) => name in kept && text(kept[name]) !== text(values[i]) ? kept[name] : undefined);
    },
  });
  // A fault is said once: where it stands on the page, if that can be seen; else in the toast.
  const said = (text) => [...document.querySelectorAll(".state.fault")].find((box) => box.offsetParent && box.textContent === text);
  new MutationObserver(() => {
    for (const toast of document.querySelectorAll(".toast-body.error")) {
      const boxes = [...toast.querySelectorAll("[data-testid=toast-text]")].map((part) => said(part.textContent));
      if (!boxes.length || !boxes.every(Boolean)) continue;
      boxes[0].scrollIntoView({block: "nearest"});
      toast.style.display = "none";
      toast.querySelector("[data-testid=toast-close]").click();
    }
  }).observe(document, {childList: true, subtree: true});
  // What was typed and not sent outlives a reload.
  const texts = ["chat-input", "vote-input", "source", "ReadConfig-instruction", "ReadConfig-system", "runs-search",
    "push-repository", "import-source", "import-base", "import-name", "kept-as"], held = "sftdemo-texts";
  const boxes = (id) => document.querySelector(`#${id} textarea, #${id} input`);
  const kept = JSON.parse(sessionStorage.getItem(held) || "{}");
  const restore = setInterval(() => {
    for (const [id, text] of Object.entries(kept)) {
      const box = boxes(id);
      if (!box) continue;
      if (!box.value) { box.value = text; box.dispatchEvent(new Event("input", {bubbles: true})); }
      delete kept[id];
    }
    if (!Object.keys(kept).length) clearInterval(restore);
  }, 500);
  addEventListener("pagehide", () => {
    for (const id of texts) {
      const text = boxes(id)?.value;
      if (text) kept[id] = text;
    }
    sessionStorage.setItem(held, JSON.stringify(kept));
  });
  // The second click of a double click would be a vote on the next pair, unread.
  document.addEventListener("click", (event) => {
    if (event.detail > 1 && event.target.closest?.("#vote-buttons")) { event.preventDefault(); event.stopPropagation(); }
  }, true);
  // A screen that waits has a button to the tab where that is got for which it waits.
  document.addEventListener("click", (event) => {
    const way = event.target.closest?.("[data-go]");
    if (way) document.getElementById(`tab-${way.dataset.go}-button`)?.click();
  });
  // The keys of the vote: never while typing, while an input method composes, held down or with a modifier.
  const keys = {1: "vote-a", 2: "vote-b", 3: "vote-tie", 4: "vote-bad", s: "vote-skip", u: "vote-undo", Enter: "vote-next"};
  document.addEventListener("keydown", (event) => {
    const typing = event.target.closest?.("input:not([type=checkbox], [type=radio]), textarea, select, [contenteditable=true]");
    if (typing || event.isComposing || event.keyCode === 229 || event.repeat || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "Enter" && event.target.closest?.("button:not([role=tab]), a, tr")) return;
    const button = document.getElementById(keys[event.key.length === 1 ? event.key.toLowerCase() : event.key] || "-");
    if (button && button.offsetParent && !button.disabled) { event.preventDefault(); button.click(); }
  });
})();
</script>
"""
)

# One listener for every list one can pick from: a click, or Enter on the focused row, sends its data-pick.
PICK_JS = """
const send = (event) => {
  const row = event.target.closest('[data-pick]');
  if (row && element.contains(row)) {
    event.preventDefault();
    window.sftdemo.typed = document.querySelector('#chat-input textarea')?.value;
    trigger('select', {value: row.dataset.pick});
  }
  if (row && row.closest('#outputs')) window.sftdemo.here({answer: String(Number(row.dataset.pick) + 1)});
};
element.addEventListener('click', send);
element.addEventListener('keydown', (event) => {
  if (event.key === 'Enter' && event.target.matches('tr[data-pick]')) send(event);
});
"""
# Copies, as text, what the selector in `data-from` finds nearest to the button, also where the page has no clipboard.
COPY_JS = """
element.addEventListener('click', (event) => {
  const button = event.target.closest('[data-copy]');
  if (!button) return;
  let place = button;
  while (!place.querySelector(button.dataset.from)) place = place.parentElement;
  const selection = getSelection();
  selection.selectAllChildren(place.querySelector(button.dataset.from));
  document.execCommand('copy');
  selection.removeAllRanges();
  button.textContent = button.dataset.copy;
});
"""
# A conversation: its buttons, and the last question kept in sight together with the answers that grow below it, until the
# reader scrolls elsewhere.
TALK_JS = (
    PICK_JS
    + COPY_JS
    + """
let question = '', following = true;
for (const moved of ['wheel', 'touchmove']) addEventListener(moved, () => { following = false; }, {passive: true});
watch('value', () => {
  const turn = element.querySelector('.turn'), bar = document.getElementById('chat-bottom');
  if (!turn || !bar || element.closest('#chat-now') === null) return;
  const asked = turn.dataset.turn + turn.querySelector('.says').textContent;
  if (asked !== question) { question = asked; following = true; }
  const hidden = turn.getBoundingClientRect().bottom - bar.getBoundingClientRect().top, room = turn.getBoundingClientRect().top;
  if (following && hidden > 0 && room > 0) scrollBy(0, Math.min(hidden, room));
});
"""
)
SEND_JS = (
    "(text) => ({__type__: 'update', interactive: Boolean(text && text.trim())})"  # nothing typed, nothing to send
)
# What was picked goes into the field, unless something else has been typed there since the click.
FILL_JS = r"""(text, offered) => {
  const typed = document.querySelector('#chat-input textarea')?.value;
  if (!offered || typed !== window.sftdemo.typed) return [text, ''];
  window.sftdemo.typed = offered.replace(/\r\n?/g, '\n');  // as the field holds it, for what was picked meanwhile
  return [offered, ''];
}"""
MARKS_JS = "(on) => { document.body.classList.toggle('no-marks', !on); }"
HEADER_JS = """
element.addEventListener('click', (event) => {
  const button = event.target.closest('[data-do]');
  if (button) window.sftdemo[button.dataset.do]();
});
"""


IN_BOTH = {  # variables of the theme that are the same in light and dark, where the style sheet's own change
    "body_background_fill": "var(--bench)",
    "body_text_color": "var(--ink)",
    "body_text_color_subdued": "var(--muted)",
    "background_fill_primary": "var(--sheet)",
    "background_fill_secondary": "var(--bench)",
    "block_background_fill": "var(--sheet)",
    "block_border_color": "var(--line)",
    "block_info_text_color": "var(--muted)",
    "border_color_primary": "var(--line)",
    "color_accent_soft": "var(--tuned-soft)",
    "input_background_fill": "var(--sheet)",
    "input_border_color": "var(--line)",
    "input_border_color_focus": "var(--tuned)",
    "slider_color": "var(--tuned)",
    "button_primary_background_fill": "var(--tuned)",
    "button_primary_background_fill_hover": "var(--tuned-text)",
    "button_primary_text_color": "var(--on-tuned)",
    "button_secondary_background_fill": "var(--sheet)",
    "button_secondary_background_fill_hover": "var(--base-soft)",
    "button_secondary_border_color": "var(--line)",
    "button_secondary_text_color": "var(--ink)",
}
AS_GIVEN = {  # variables whose dark twin is Gradio's
    "block_border_width": "1px",
    "block_label_text_color": "var(--muted)",
    "block_title_text_color": "var(--ink)",
    "block_title_text_weight": "600",
    "block_shadow": "none",
    "border_color_accent": "var(--tuned)",
    "color_accent": "var(--tuned)",
    "input_border_width": "1px",
    "button_primary_border_color": "transparent",
    "button_border_width": "1px",
}


def theme() -> Any:
    """Neutral greys, system fonts, the accent of *tuned* on main buttons and nowhere else."""
    import gradio as gr

    theme = gr.themes.Base(
        primary_hue=gr.themes.colors.blue,
        neutral_hue=gr.themes.colors.gray,
        font=FONTS,
        font_mono=MONO,
        radius_size=gr.themes.sizes.radius_lg,
    )
    return theme.set(**AS_GIVEN, **IN_BOTH, **{f"{name}_dark": value for name, value in IN_BOTH.items()})
