"""The look of the page; its colours are those of the reports."""

from lavis_evlgen.reports.page import COLOURS
from lavis_evlgen.reports.tokens.script import STYLE as TOKEN_MAPS

STYLE = (
    COLOURS
    + TOKEN_MAPS
    + """
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--text); font: 16px/1.55 system-ui, sans-serif; }
.nicegui-content { display: block; padding: 0; }
.all { max-width: 1240px; margin: 0 auto; padding: 36px 20px 56px; }
.all h1 { font-size: 1.9rem; line-height: 1.2; font-weight: 650; letter-spacing: -.02em; margin: 0 0 8px; }
.all h2 { font-size: 1rem; line-height: 1.4; font-weight: 600; letter-spacing: 0; margin: 0 0 8px; }
.all p { margin: 0 0 10px; max-width: 78ch; }
.all .model + p { margin-top: 8px; }
.soft, .all figcaption { color: var(--soft); font-size: .88rem; line-height: 1.45; }
.all .knows { border-left: 3px solid var(--accent); padding: 2px 0 2px 12px; margin: 14px 0 26px; max-width: 78ch; }
.desk { display: grid; gap: 24px; grid-template-columns: minmax(0, 340px) minmax(0, 1fr); align-items: start; }
.given { display: grid; gap: 18px; position: sticky; top: 16px; }
.panels { display: grid; gap: 20px; align-items: start;
  grid-template-columns: repeat(auto-fit, minmax(min(340px, 100%), 1fr)); }
.panel { background: var(--card); border: 1px solid var(--line); border-radius: 14px; padding: 18px; min-width: 0; }
.drop { display: grid; place-items: center; min-height: 210px; padding: 14px; text-align: center; cursor: pointer;
  background: var(--card); border: 2px dashed var(--line); border-radius: 14px; transition: border-color .15s; }
.drop:hover, .drop:focus-visible, .drop.over { border-color: var(--accent); outline: none; }
.drop img { display: block; max-width: 100%; max-height: 300px; border-radius: 8px; margin-bottom: 10px; }
.drop b { font-weight: 600; }
.chooser { display: none; }
.problem { color: var(--bad); overflow-wrap: anywhere; }
.problem:empty, .soft:empty, .said:empty { display: none; }
.examples { display: grid; gap: 8px; grid-template-columns: repeat(3, minmax(0, 1fr)); margin-bottom: 8px; }
.examples button { padding: 0; border: 2px solid transparent; border-radius: 10px; background: none; cursor: pointer;
  line-height: 0; overflow: hidden; }
.examples button:hover, .examples button:focus-visible { border-color: var(--accent); outline: none; }
.examples img { width: 100%; height: auto; }
.caption { font-size: 1.4rem; line-height: 1.3; font-weight: 600; letter-spacing: -.01em; margin: 4px 0 12px;
  min-height: 1.3em; overflow-wrap: anywhere; }
.asking-caption .caption, .asking-caption .numbers, .asking-answer .answer { opacity: .4; }
.numbers { display: grid; gap: 10px; grid-template-columns: repeat(3, minmax(0, 1fr)); margin: 0 0 16px; }
.numbers b { display: block; font-size: 1.15rem; line-height: 1.3; font-weight: 600; white-space: nowrap; }
.numbers span { color: var(--soft); font-size: .8rem; line-height: 1.35; display: block; }
.budget span:last-child { white-space: nowrap; }
.budget { display: flex; justify-content: space-between; gap: 12px; font-weight: 600; }
.tried { border-collapse: collapse; width: 100%; font-size: .88rem; margin: 0 0 16px; }
.tried th { text-align: left; font-weight: 400; color: var(--soft); padding: 2px 12px 2px 0; white-space: nowrap; }
.tried td { padding: 4px 12px 4px 0; border-top: 1px solid var(--line); vertical-align: top; overflow-wrap: anywhere; }
.tried td:last-child, .tried th:last-child { text-align: right; padding-right: 0; white-space: nowrap; }
.mapped { display: flex; flex-wrap: wrap; gap: 6px 18px; }
.mapped > :first-child { flex: 999 1 300px; max-width: 520px; min-width: 0; }
.mapped > :last-child { flex: 1 1 190px; align-self: center; }
.answer { font-size: 1.1rem; font-weight: 600; overflow-wrap: anywhere; }
.panel .bar { position: static; background: none; padding: 0 0 10px; border-bottom: 0; font-size: .92rem; }
.panel .shown h2, .panel .shown > p:first-of-type:empty { display: none; }
.panel figure { margin: 0; overflow: hidden; border: 1px solid var(--line); border-radius: 10px; }
.panel figure:has(> img) { display: none; }
.panel figcaption { padding: 8px 10px 10px; }
.panel figcaption strong { display: none; }
.panel .maps-of { margin: 0 0 8px; }
.panel hr { border: 0; border-top: 1px solid var(--line); margin: 18px 0; }
.ask { display: flex; gap: 8px; align-items: center; }
.ask > :first-child { flex: 1; }
.ask + p { margin-top: 8px; }
.all .foot { margin-top: 36px; max-width: none; border-top: 1px solid var(--line); padding-top: 14px; }
@media (max-width: 900px) {
  .desk { grid-template-columns: minmax(0, 1fr); }
  .given { position: static; }
  .examples { grid-template-columns: repeat(6, minmax(0, 1fr)); }
  .all { padding: 22px 14px 40px; }
}
"""
)
